// Package e2eprovider lends netproof's clusters to sigs.k8s.io/e2e-framework: a [Provider] is an E2EClusterProvider, to
// be given to its envfuncs.CreateCluster and envfuncs.DestroyCluster.
//
//	func TestMain(m *testing.M) {
//		kind.Init()
//		p := e2eprovider.Kind(kind.Options{}, cluster.Options{CNI: "calico", Nodes: 2})
//		testEnv := env.New()
//		testEnv.Setup(envfuncs.CreateCluster(p, "policies"))
//		testEnv.Finish(envfuncs.DestroyCluster("policies"))
//		os.Exit(testEnv.Run(m))
//	}
//
// What one trips over: errors of Finish are only logged by the framework, and a Setup that fails skips it. A cluster of
// kind is removed all the same when the test binary ends, by its watchdog.
package e2eprovider
