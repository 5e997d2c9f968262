{{/* Security of pods that need nothing of the node; the ids are the images' `nonroot`. */}}
{{- define "honeyguide.unprivileged.pod" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{/* Security of their containers. */}}
{{- define "honeyguide.unprivileged.container" -}}
privileged: false
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}
