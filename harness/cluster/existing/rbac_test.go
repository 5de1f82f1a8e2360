package existing

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"sigs.k8s.io/yaml"

	"github.com/netproof/netproof/harness/cluster/lease"
	"github.com/netproof/netproof/harness/expect"
	"github.com/netproof/netproof/harness/model"
	"github.com/netproof/netproof/harness/policy"
	"github.com/netproof/netproof/harness/scenario"
)

var update = flag.Bool("update", false, "write golden files")

// documents are the documents of a YAML file, those that hold nothing but comments left out.
func documents(t *testing.T, text []byte) (docs [][]byte) {
	t.Helper()
	for doc := range bytes.SplitSeq(text, []byte("\n---\n")) {
		var any map[string]any
		require.NoError(t, yaml.Unmarshal(doc, &any))
		if len(any) > 0 {
			docs = append(docs, doc)
		}
	}
	return docs
}

// read reads a document strictly as what it says it is.
func read[T any](t *testing.T, docs [][]byte, kind, name string) T {
	t.Helper()
	var out T
	for _, doc := range docs {
		var head struct {
			Kind     string
			Metadata struct{ Name string }
		}
		require.NoError(t, yaml.Unmarshal(doc, &head))
		if head.Kind == kind && head.Metadata.Name == name {
			require.NoError(t, yaml.UnmarshalStrict(doc, &out), "%s", doc)
			return out
		}
	}
	require.Fail(t, "no such document", "%s %s", kind, name)
	return out
}

func TestTheManifestGivesTheRightsAndNothingElse(t *testing.T) {
	opts := RBACOptions{ServiceAccount: "ci", Namespace: "ci-jobs", Policies: policy.Families()}
	text, err := Manifest(opts)
	require.NoError(t, err)
	docs := documents(t, text)
	assert.Len(t, docs, 7)

	role, clusterRole := read[rbacv1.Role](t, docs, "Role", "ci"), read[rbacv1.ClusterRole](t, docs, "ClusterRole", "ci")
	assert.Equal(t, lease.Namespace, role.Namespace)
	assert.ElementsMatch(t, Rules(opts), append(slices.Clone(role.Rules), clusterRole.Rules...))
	account := []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: "ci-jobs", Name: "ci"}}
	assert.Equal(t, account, read[rbacv1.RoleBinding](t, docs, "RoleBinding", "ci").Subjects)
	assert.Equal(t, account, read[rbacv1.ClusterRoleBinding](t, docs, "ClusterRoleBinding", "ci").Subjects)
	assert.False(t, *read[corev1.ServiceAccount](t, docs, "ServiceAccount", "ci").AutomountServiceAccountToken)
	assert.Equal(t, "restricted", read[corev1.Namespace](t, docs, "Namespace", "ci-jobs").Labels["pod-security.kubernetes.io/enforce"])
	assert.Equal(t, strings.Count(string(text), "\n- "), strings.Count(string(text), "\n# ")-len(Amounts(opts))+2, "each rule has a comment; there are two subjects")
}

func TestRightsInNamespacesAreInNoOthers(t *testing.T) {
	opts := RBACOptions{Namespaces: []string{"shop", "bank"}, NamespacePrefix: "team-", Policies: policy.Families()}
	text, err := Manifest(opts)
	require.NoError(t, err)
	docs := documents(t, text)
	var resources []string
	for _, r := range read[rbacv1.ClusterRole](t, docs, "ClusterRole", "netproof").Rules {
		assert.Contains(t, []string{"list", "get"}, strings.Join(r.Verbs, ","), "of the cluster's scope nothing can be changed")
		resources = append(resources, r.Resources...)
	}
	assert.Equal(t, []string{
		"nodes", "adminnetworkpolicies", "baselineadminnetworkpolicies", "clusternetworkpolicies", "globalnetworkpolicies", "globalnetworkpolicies",
		"ciliumclusterwidenetworkpolicies",
	}, resources)
	within := map[string]bool{}
	for _, g := range Grants(opts) {
		if within[g.Namespace] = true; g.Namespace == "" {
			continue
		}
		for _, kind := range policy.Kinds() {
			if !kind.Namespaced {
				assert.NotContains(t, g.Rule.Resources, kind.Resource, "a right in a namespace is none on what is in no namespace")
			}
		}
	}
	assert.Equal(t, map[string]bool{"": true, "bank": true, "shop": true, "team-netproof-canary": true, lease.Namespace: true}, within)
	assert.Equal(t, "true", read[corev1.Namespace](t, docs, "Namespace", "team-netproof-canary").Labels["netproof.dev/lent"])
	assert.NotContains(t, string(text), "kind: Namespace\nmetadata:\n  name: shop", "what is there already is not touched")
	assert.Contains(t, string(text), "# In the namespaces bank, shop, team-netproof-canary these rights are as good as all:")

	text, err = Manifest(RBACOptions{})
	require.NoError(t, err)
	assert.Contains(t, string(text), "# These rights are as good as cluster-admin:")

	for says, wrong := range map[string]RBACOptions{
		"kube-system is everybody's":       {Namespaces: []string{"kube-system"}},
		`namespace "No": `:                 {Namespaces: []string{"No"}},
		"namespace default is everybody's": {Namespaces: []string{"shop", "default"}},
		"netproof-system is everybody's":   {Namespaces: []string{lease.Namespace}},
	} {
		_, err := Manifest(wrong)
		require.ErrorContains(t, err, says)
	}
}

func TestNoRightIsAWildcardOrReadsSecrets(t *testing.T) {
	for _, g := range append(Grants(RBACOptions{Policies: policy.Families()}), Grants(RBACOptions{Namespaces: []string{"shop"}, Policies: policy.Families()})...) {
		assert.NotEmpty(t, g.Purpose)
		for _, list := range [][]string{g.Rule.Verbs, g.Rule.APIGroups, g.Rule.Resources} {
			assert.NotContains(t, list, "*")
		}
		for _, never := range []string{"secrets", "serviceaccounts", "serviceaccounts/token", "roles", "clusterroles"} {
			assert.NotContains(t, g.Rule.Resources, never)
		}
	}
}

func TestRightsOnAPluginsOwnPoliciesAreGivenOnRequest(t *testing.T) {
	groups := func(families ...string) (out []string) {
		for _, r := range Rules(RBACOptions{Policies: families}) {
			out = append(out, r.APIGroups...)
		}
		return out
	}
	assert.NotContains(t, strings.Join(groups(), " "), "cilium")
	assert.NotContains(t, strings.Join(groups(), " "), "calico")
	assert.Contains(t, groups(policy.Cilium), "cilium.io")
	assert.Contains(t, groups(policy.Calico), "crd.projectcalico.org")
	assert.Contains(t, groups(policy.Admin), "policy.networking.k8s.io")
	_, err := Manifest(RBACOptions{Policies: []string{"weave"}})
	require.ErrorContains(t, err, "admin, calico, cilium")
}

const jobFile = "../../../ci/job.yaml"

// rightsBegin and rightsEnd enclose the rights in the file of the Jobs.
const (
	rightsBegin = "# Rights: netproof rbac prints these.\n"
	rightsEnd   = "# End of the rights.\n"
)

func TestTheJobsHaveTheRights(t *testing.T) {
	text, err := os.ReadFile(jobFile)
	require.NoError(t, err)
	want, err := Manifest(RBACOptions{})
	require.NoError(t, err)
	before, rest, found := strings.Cut(string(text), rightsBegin)
	require.True(t, found)
	have, after, found := strings.Cut(rest, rightsEnd)
	require.True(t, found)
	if *update {
		require.NoError(t, os.WriteFile(jobFile, []byte(before+rightsBegin+string(want)+rightsEnd+after), 0o644))
		return
	}
	assert.Equal(t, string(want), have, "go test ./harness/cluster/existing -run TheJobs -update writes them anew")
}

func TestTheJobsRunWhatTheySayAndNeedNoPrivilege(t *testing.T) {
	text, err := os.ReadFile(jobFile)
	require.NoError(t, err)
	docs := documents(t, text)
	for _, name := range []string{"netproof", "netproof-shards"} {
		job := read[batchv1.Job](t, docs, "Job", name)
		assert.Equal(t, lease.Namespace, job.Namespace)
		pod := job.Spec.Template.Spec
		assert.Equal(t, "netproof", pod.ServiceAccountName)
		assert.True(t, *pod.AutomountServiceAccountToken)
		assert.Equal(t, corev1.RestartPolicyNever, pod.RestartPolicy)
		assert.True(t, *pod.SecurityContext.RunAsNonRoot)
		assert.Equal(t, corev1.SeccompProfileTypeRuntimeDefault, pod.SecurityContext.SeccompProfile.Type)
		c := pod.Containers[0]
		assert.False(t, *c.SecurityContext.AllowPrivilegeEscalation)
		assert.True(t, *c.SecurityContext.ReadOnlyRootFilesystem)
		assert.Equal(t, []corev1.Capability{"ALL"}, c.SecurityContext.Capabilities.Drop)
		assert.True(t, byDigest(c.Image), c.Image)
		assert.Equal(t, "/netproof", c.Command[0])
		assert.Contains(t, c.Args, "--provider=existing")
		assert.Contains(t, c.Args, "--agent-image="+c.Image)
	}
	shards := read[batchv1.Job](t, docs, "Job", "netproof-shards").Spec
	assert.Equal(t, batchv1.IndexedCompletion, *shards.CompletionMode)
	assert.Equal(t, *shards.Completions, *shards.Parallelism)
	args := shards.Template.Spec.Containers[0].Args
	assert.Contains(t, args, "--shard=auto/4")
	assert.Equal(t, int32(4), *shards.Completions)
	assert.Contains(t, args, "--namespace-prefix=shard-$(JOB_COMPLETION_INDEX)-")
}

func TestTheScenariosOfTheJobsAreSound(t *testing.T) {
	text, err := os.ReadFile(jobFile)
	require.NoError(t, err)
	docs := documents(t, text)
	config := read[corev1.ConfigMap](t, docs, "ConfigMap", "netproof-scenarios")
	volume := read[batchv1.Job](t, docs, "Job", "netproof").Spec.Template.Spec.Volumes[0].ConfigMap
	require.Equal(t, config.Name, volume.Name)

	// The kubelet puts the files behind links: NAME -> ..data/NAME, ..data -> a folder with the time in its name.
	dir := t.TempDir()
	for name, content := range config.Data {
		file := filepath.Join(dir, "..2026", name)
		require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o755))
		require.NoError(t, os.WriteFile(file, []byte(content), 0o644))
		require.NoError(t, os.Symlink(filepath.Join("..data", name), filepath.Join(dir, name)))
	}
	require.NoError(t, os.Symlink("..2026", filepath.Join(dir, "..data")))
	loaded, err := scenario.Load(t.Context(), []string{dir}, scenario.Options{})
	require.NoError(t, err)
	require.Len(t, loaded, 4, "one for each shard")
	_, err = expect.Prepare(loaded, expect.Options{Families: []model.IPFamily{model.IPv4}, Nodes: 2})
	require.NoError(t, err)
}
