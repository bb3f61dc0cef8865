{{- define "labels" -}}
app.kubernetes.io/part-of: longhorn-base-image
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "image" -}}
{{ .root.Values.image.prefix }}/{{ .name }}:{{ .root.Values.image.tag | default (printf "v%s" .root.Chart.AppVersion) }}
{{- end }}

{{- define "pullSecrets" -}}
{{- range .Values.image.pullSecrets }}
- name: {{ . }}
{{- end }}
{{- end }}

{{- /* The Secret with the key of the certificate authority. */}}
{{- define "caSecret" -}}
{{ .Values.tls.existingCA | default "longhorn-base-image-ca" }}
{{- end }}

{{- /* How a pod gets its certificate: options, mount and volume. */}}
{{- define "certificateArgs" -}}
- --authority=longhorn-csi-controller:8003
- --authority-ca=/var/run/longhorn/certificates/ca.crt
- --authority-token=/var/run/longhorn/certificates/token
{{- end }}

{{- define "certificateMount" -}}
- name: certificates
  mountPath: /var/run/longhorn/certificates
  readOnly: true
{{- end }}

{{- define "certificateVolume" -}}
# Whom to believe, and by what this pod proves who it is. The pod starts when the controller has published the
# authority: until then the key is missing in the ConfigMap, and the kubelet tries again, after seconds at first.
- name: certificates
  projected:
    sources:
      - configMap:
          name: longhorn-base-image-ca
          items:
            - {key: ca.crt, path: ca.crt}
      - serviceAccountToken:
          path: token
          audience: longhorn-base-image
          expirationSeconds: 3600
{{- end }}

{{- /* Backup targets: what both daemons are told, where their Secrets are, and where NFS and CIFS are mounted. */}}
{{- define "backupTargets" -}}
- name: BACKUP_TARGETS
  {{- $targets := list }}
  {{- range .Values.backup.targets }}
  {{- $targets = append $targets (printf "%s=%s" .name .address) }}
  {{- end }}
  value: {{ join " " $targets | quote }}
{{- end }}

{{- define "backupMounts" -}}
{{- range .root.Values.backup.targets }}
{{- if .secret }}
- {name: backup-{{ .name }}, mountPath: /etc/longhorn-base-image/backup/{{ .name }}, readOnly: true}
{{- end }}
{{- end }}
- {name: backup-mounts, mountPath: /var/lib/longhorn-backupstore-mounts, mountPropagation: {{ .propagation }}}
{{- end }}

{{- define "backupVolumes" -}}
{{- range .Values.backup.targets }}
{{- if .secret }}
- {name: backup-{{ .name }}, secret: {secretName: {{ .secret }}, optional: true}}
{{- end }}
{{- end }}
- {name: backup-mounts, hostPath: {path: /var/lib/longhorn-backupstore-mounts, type: DirectoryOrCreate}}
{{- end }}
