{{/* Prefix of all names, at most 50 characters so that suffixes fit. */}}
{{- define "honeyguide.fullname" -}}
{{- $name := .Values.nameOverride | default .Chart.Name -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* Labels that select pods of a component; called with (list $ "component"). */}}
{{- define "honeyguide.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ $root.Values.nameOverride | default $root.Chart.Name | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{/* All labels of a component; called with (list $ "component"). */}}
{{- define "honeyguide.labels" -}}
{{- $root := index . 0 -}}
{{ include "honeyguide.selector" . }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" }}
{{- with $root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Image of a component; called with (list $ "image"). */}}
{{- define "honeyguide.image" -}}
{{- $image := (index . 0).Values.image -}}
{{- $name := printf "%s:%s" (index . 1) ($image.tag | default (index . 0).Chart.AppVersion) -}}
{{- (ternary (printf "%s/%s" $image.registry $name) $name (ne $image.registry "")) | quote -}}
{{- end -}}

{{/* Service account of a component; called with (list $ "component"). */}}
{{- define "honeyguide.serviceAccount" -}}
{{- $root := index . 0 -}}
{{- $account := (index $root.Values (index . 1)).serviceAccount -}}
{{- if $account.create -}}
{{- $account.name | default (printf "%s-%s" (include "honeyguide.fullname" $root) (index . 1)) -}}
{{- else -}}
{{- $account.name | default "default" -}}
{{- end -}}
{{- end -}}

{{/* What all containers share: logging, and the file with the configuration. */}}
{{- define "honeyguide.env" -}}
- name: HONEYGUIDE_CONFIG
  value: /etc/honeyguide/honeyguide.toml
- name: HONEYGUIDE_LOG
  value: {{ .Values.log.filter | quote }}
- name: HONEYGUIDE_LOG_FORMAT
  value: {{ .Values.log.format | quote }}
{{- with .Values.kafka.tls }}
{{- if and .enabled .client.existingSecret .client.passwordKey }}
- name: KAFKA_KEY_PASSWORD
  valueFrom:
    secretKeyRef:
      name: {{ .client.existingSecret }}
      key: {{ .client.passwordKey }}
# In quotes, or a password of digits would be taken for a number.
- name: HONEYGUIDE_KAFKA__KEY_PASSWORD
  value: '"$(KAFKA_KEY_PASSWORD)"'
{{- end }}
{{- end }}
{{- end -}}

{{/* Mounts of the configuration and of Kafka's secrets. */}}
{{- define "honeyguide.mounts" -}}
- name: config
  mountPath: /etc/honeyguide
  readOnly: true
{{- if include "honeyguide.kafka.sources" . }}
- name: kafka
  mountPath: /var/run/secrets/honeyguide-kafka
  readOnly: true
{{- end }}
{{- end -}}

{{/* Volumes of the same; called with (list $ "component"). */}}
{{- define "honeyguide.volumes" -}}
{{- $root := index . 0 -}}
- name: config
  configMap:
    name: {{ include "honeyguide.fullname" $root }}-{{ index . 1 }}
{{- with include "honeyguide.kafka.sources" $root }}
- name: kafka
  projected:
    # The sensor's group is root's, the analyzer's that of fsGroup.
    defaultMode: 0440
    sources:
      {{- trim . | nindent 6 }}
{{- end }}
{{- end -}}

{{/* Where Kafka's secrets come from; empty when there are none. */}}
{{- define "honeyguide.kafka.sources" -}}
{{- $tls := .Values.kafka.tls -}}
{{- $sasl := .Values.kafka.sasl -}}
{{- if and $tls.enabled $tls.ca.existingSecret }}
- secret:
    name: {{ $tls.ca.existingSecret }}
    items:
      - key: {{ $tls.ca.key }}
        path: ca.crt
{{- end }}
{{- if and $tls.enabled $tls.client.existingSecret }}
- secret:
    name: {{ $tls.client.existingSecret }}
    items:
      - key: {{ $tls.client.certificateKey }}
        path: tls.crt
      - key: {{ $tls.client.privateKeyKey }}
        path: tls.key
{{- end }}
{{- if hasPrefix "SCRAM-" $sasl.mechanism }}
- secret:
    name: {{ $sasl.password.existingSecret }}
    items:
      - key: {{ $sasl.password.key }}
        path: password
{{- end }}
{{- if eq $sasl.mechanism "OAUTHBEARER" }}
- serviceAccountToken:
    audience: {{ $sasl.oauth.audience }}
    expirationSeconds: {{ int64 $sasl.oauth.expirationSeconds }}
    path: token
{{- end }}
{{- end -}}

{{/* seccompProfile from its value. */}}
{{- define "honeyguide.seccomp" -}}
{{- if hasPrefix "localhost/" . -}}
type: Localhost
localhostProfile: {{ trimPrefix "localhost/" . }}
{{- else -}}
type: {{ . }}
{{- end -}}
{{- end -}}
