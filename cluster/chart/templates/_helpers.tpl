{{- /* The names are fixed, since kdev looks for them: one relay per namespace. */ -}}
{{- define "relay.labels" -}}
app.kubernetes.io/name: kdev-relay
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/instance: {{ .Release.Name }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "relay.image" -}}
{{- $repository := required "set image.repository: there is no public image of the relay (cluster/README.md says how to make one)" .Values.image.repository -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" $repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" $repository (default .Chart.AppVersion .Values.image.tag) -}}
{{- end -}}
{{- end }}
