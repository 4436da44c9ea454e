{{- define "tagtrail.labels" -}}
app.kubernetes.io/name: tagtrail
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "tagtrail.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end }}

{{- define "tagtrail.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile: { type: RuntimeDefault }
{{- end }}

{{- define "tagtrail.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: { drop: [ALL] }
{{- end }}

{{/* The variables of a service. Argument: the name of the service, and the root. */}}
{{- define "tagtrail.environment" -}}
{{- $service := index . 0 }}{{ $root := index . 1 -}}
{{- if ne $service "gateway" }}
- name: DATABASE_URL
  valueFrom: { secretKeyRef: { name: {{ $root.Values.urls.secret }}, key: DATABASE_URL_{{ upper $service }} } }
{{- end }}
- name: NATS_URL
  valueFrom: { secretKeyRef: { name: {{ $root.Values.urls.secret }}, key: NATS_URL_{{ upper $service }} } }
- { name: TAGTRAIL_NATS_REPLICAS, value: {{ $root.Values.natsReplicas | quote }} }
- { name: TAGTRAIL_PARTITIONS, value: {{ $root.Values.partitions | quote }} }
- { name: TAGTRAIL_CONFIG, value: /etc/tagtrail/tagtrail.toml }
{{- end }}
