//go:build linux

package controlplane

import (
	"fmt"
	"net/netip"
	"strings"
)

// apiGroups are the groups of the API that a cluster offers. The others cost start-up time and memory, and neither a
// workload, a policy, nor a component of the cluster asks for them.
var apiGroups = []string{
	"v1",
	"apps/v1",
	"batch/v1",
	"discovery.k8s.io/v1",
	"events.k8s.io/v1",
	"networking.k8s.io/v1",
	"policy/v1",
	"coordination.k8s.io/v1",
	"apiextensions.k8s.io/v1",
	"apiregistration.k8s.io/v1",
	"authentication.k8s.io/v1",
	"authorization.k8s.io/v1",
	"rbac.authorization.k8s.io/v1",
	"scheduling.k8s.io/v1",
	"storage.k8s.io/v1",
	"node.k8s.io/v1",
	"admissionregistration.k8s.io/v1",
	"autoscaling/v1",
	"autoscaling/v2",
}

// disabledAdmission are plugins that either need something that a local cluster has not (tokens of service accounts) or
// cost informers without bearing on networking.
var disabledAdmission = []string{
	"ServiceAccount",
	"RuntimeClass",
	"Priority",
	"StorageObjectInUseProtection",
	"DefaultStorageClass",
	"PersistentVolumeClaimResize",
	"ClusterTrustBundleAttest",
	"CertificateApproval",
	"CertificateSigning",
	"CertificateSubjectRestriction",
	"DefaultIngressClass",
	"TaintNodesByCondition",
	"LimitRanger",
	"ResourceQuota",
	"MutatingAdmissionPolicy",
	"ValidatingAdmissionPolicy",
	"MutatingAdmissionWebhook",
	"ValidatingAdmissionWebhook",
	"PodTopologyLabels",
}

func apiserverArgs(cfg Config, creds *credentials) []string {
	enabled := []string{"api/all=false"}
	for _, g := range apiGroups {
		enabled = append(enabled, g+"=true")
	}
	return []string{
		"--etcd-servers=" + etcdURL,
		// Etcd does not outlive the API server, so compaction only costs.
		"--etcd-compaction-interval=0",
		"--etcd-count-metric-poll-period=0",
		"--bind-address=" + cfg.Addresses[0].String(),
		"--advertise-address=" + cfg.Addresses[0].String(),
		fmt.Sprintf("--secure-port=%d", SecurePort),
		"--tls-cert-file=" + creds.certFile,
		"--tls-private-key-file=" + creds.keyFile,
		"--token-auth-file=" + creds.tokenFile,
		"--anonymous-auth=false",
		"--authorization-mode=AlwaysAllow",
		"--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-key-file=" + creds.serviceAccountKeyFile,
		"--service-account-signing-key-file=" + creds.serviceAccountKeyFile,
		"--service-cluster-ip-range=" + joinPrefixes(cfg.ServiceCIDRs),
		"--endpoint-reconciler-type=none",
		"--enable-priority-and-fairness=false",
		"--max-requests-inflight=0",
		"--max-mutating-requests-inflight=0",
		"--disable-admission-plugins=" + strings.Join(disabledAdmission, ","),
		"--runtime-config=" + strings.Join(enabled, ","),
		"--profiling=false",
		"--event-ttl=1h",
		"--v=0",
	}
}

// controllers are those that workloads, services and deletion need.
var controllers = []string{
	"deployment-controller",
	"replicaset-controller",
	"statefulset-controller",
	"daemonset-controller",
	"job-controller",
	"endpointslice-controller",
	"serviceaccount-controller",
	"garbage-collector-controller",
}

func controllerManagerArgs(cfg Config, kubeconfig string) []string {
	return []string{
		"--kubeconfig=" + kubeconfig,
		"--leader-elect=false",
		"--controllers=" + strings.Join(controllers, ","),
		"--allocate-node-cidrs=false",
		"--cluster-cidr=" + joinPrefixes(cfg.PodCIDRs),
		"--service-cluster-ip-range=" + joinPrefixes(cfg.ServiceCIDRs),
		"--use-service-account-credentials=false",
		"--kube-api-qps=1000",
		"--kube-api-burst=1000",
		"--concurrent-service-endpoint-syncs=10",
		"--endpointslice-updates-batch-period=0s",
		"--bind-address=127.0.0.1",
		"--profiling=false",
		"--v=0",
	}
}

func joinPrefixes(prefixes []netip.Prefix) string {
	var s []string
	for _, p := range prefixes {
		s = append(s, p.String())
	}
	return strings.Join(s, ",")
}
