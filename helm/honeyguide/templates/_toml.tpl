{{/*
A value as TOML. Helm's own toToml writes every number with a fraction, because YAML's numbers come
as floats, and whole numbers would then be refused.
*/}}
{{- define "honeyguide.toml.value" -}}
{{- $value := . -}}
{{- if kindIs "map" $value -}}
{ {{- range $index, $key := keys $value | sortAlpha -}}
{{- if $index }},{{ end }} {{ toJson $key }} = {{ include "honeyguide.toml.value" (index $value $key) }}
{{- end }} }
{{- else if kindIs "slice" $value -}}
[ {{- range $index, $item := $value -}}
{{- if $index }}, {{ end }}{{ include "honeyguide.toml.value" $item }}
{{- end -}} ]
{{- else if kindIs "string" $value -}}
{{ toJson $value }}
{{- else if and (kindIs "float64" $value) (eq (floor $value) $value) -}}
{{ int64 $value }}
{{- else -}}
{{ $value }}
{{- end -}}
{{- end -}}

{{/* The keys of a map as TOML lines. */}}
{{- define "honeyguide.toml.keys" -}}
{{- $map := . -}}
{{- range $key := keys $map | sortAlpha }}
{{ $key }} = {{ include "honeyguide.toml.value" (index $map $key) }}
{{- end }}
{{- end -}}

{{/* [kafka]. */}}
{{- define "honeyguide.toml.kafka" -}}
{{- $kafka := .Values.kafka -}}
{{- $tls := $kafka.tls -}}
{{- $sasl := $kafka.sasl -}}
{{- $folder := "/var/run/secrets/honeyguide-kafka" -}}
{{- $keys := dict
  "brokers" (join "," $kafka.brokers)
  "partitions" $kafka.partitions
  "replication" $kafka.replication
  "group" $kafka.group
  "properties" $kafka.properties
-}}
{{- $protocol := ternary "ssl" "plaintext" $tls.enabled -}}
{{- if $sasl.mechanism -}}
{{- $protocol = ternary "sasl_ssl" "sasl_plaintext" $tls.enabled -}}
{{- $_ := set $keys "sasl_mechanism" $sasl.mechanism -}}
{{- end -}}
{{- $_ := set $keys "security_protocol" $protocol -}}
{{- if and $tls.enabled $tls.ca.existingSecret -}}
{{- $_ := set $keys "ca_file" (printf "%s/ca.crt" $folder) -}}
{{- end -}}
{{- if and $tls.enabled $tls.client.existingSecret -}}
{{- $_ := set $keys "certificate_file" (printf "%s/tls.crt" $folder) -}}
{{- $_ := set $keys "key_file" (printf "%s/tls.key" $folder) -}}
{{- end -}}
{{- if hasPrefix "SCRAM-" $sasl.mechanism -}}
{{- $_ := set $keys "sasl_username" $sasl.username -}}
{{- $_ := set $keys "sasl_password_file" (printf "%s/password" $folder) -}}
{{- else if $sasl.mechanism -}}
{{- $_ := set $keys "oauth_token_file" (printf "%s/token" $folder) -}}
{{- end -}}
[kafka]
{{- include "honeyguide.toml.keys" $keys }}
{{- end -}}

{{/* The sensor's file. Keys of the user's first, so that the chart's own win. */}}
{{- define "honeyguide.toml.sensor" -}}
{{- $keys := dict
  "cgroup_root" "/host/sys/fs/cgroup"
  "http_listen" "0.0.0.0:9454"
  "cost_measurement" (ternary .Values.sensor.costMeasurement.duration "0s" .Values.sensor.costMeasurement.enabled)
  "spool_dir" "/var/lib/honeyguide/spool"
  "spool_mb_max" .Values.sensor.spool.sizeMegabytes
  "spool_age_max" .Values.sensor.spool.maxAge
-}}
[sensor]
{{- include "honeyguide.toml.keys" (mustMergeOverwrite (deepCopy .Values.sensor.config) $keys) }}

{{ include "honeyguide.toml.kafka" . }}
{{- end -}}

{{/* The analyzer's file. */}}
{{- define "honeyguide.toml.analyzer" -}}
{{- $keys := dict
  "grpc_listen" (printf "0.0.0.0:%d" (int .Values.analyzer.service.grpcPort))
  "http_listen" (printf "0.0.0.0:%d" (int .Values.analyzer.service.httpPort))
  "data_dir" (ternary "/var/lib/honeyguide/history" "" .Values.analyzer.persistence.enabled)
-}}
[analyzer]
{{- include "honeyguide.toml.keys" (mustMergeOverwrite (deepCopy .Values.analyzer.config) $keys) }}

{{ include "honeyguide.toml.kafka" . }}
{{- end -}}
