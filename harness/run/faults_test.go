//go:build linux

package run

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/netproof/netproof/harness/expect"
	"github.com/netproof/netproof/harness/model"
	"github.com/netproof/netproof/harness/run/stage"
	"github.com/netproof/netproof/harness/scenario"
	"github.com/netproof/netproof/probes"
)

const (
	passed       = model.Passed
	inconclusive = model.ResultInconclusive
)

// toB are the cells to x/b, fromC those from x/c.
func toB(r model.Result) map[string]model.Result {
	return map[string]model.Result{"x/a x/b": r, "x/c x/b": r}
}

func fromC(r model.Result) map[string]model.Result {
	return map[string]model.Result{"x/c x/a": r, "x/c x/b": r}
}

func TestAServerThatDiesProvesNoDenial(t *testing.T) {
	th := openTheatre(t)
	stop := func() { require.NoError(t, th.lab.StopServers(th.lab.pod(t, "x/b"))) }

	t.Run("before the step is sampled", func(t *testing.T) {
		r := th.play(t, "isolated", stop, nil, isolation("server"))
		notGreen(t, r)
		onlyPassed(t, stepOf(t, r, "open"))
		step := stepOf(t, r, "isolated")
		assert.Equal(t, all(passed, toB(inconclusive)), results(step))
		for _, c := range []string{"x/a x/b", "x/c x/b"} {
			assert.Contains(t, cells(step)[c].Reason, "the server of x/b was not alive: port 80/TCP", c)
		}
		assert.Equal(t, model.Controls{Servers: 3, ServersAlive: 2, CanaryAllowed: true, CanaryDenied: true}, step.Controls)
	})
	t.Run("while it is sampled", func(t *testing.T) {
		r := th.play(t, "isolated", func() { th.agent("x/c").tell(lies{probe: atBatch(3, stop)}) }, nil, isolation("server"))
		notGreen(t, r)
		step := stepOf(t, r, "isolated")
		assert.Equal(t, inconclusive, results(step)["x/c x/b"])
		assert.Equal(t, 2, step.Controls.ServersAlive)
	})
	t.Run("after it was sampled", func(t *testing.T) {
		r := th.play(t, "isolated", nil, stop, isolation("server"))
		notGreen(t, r)
		step := stepOf(t, r, "isolated")
		assert.Equal(t, all(passed, map[string]model.Result{"x/c x/b": inconclusive}), results(step))
		assert.Contains(t, cells(step)["x/c x/b"].Reason, "after all policies were deleted the connection still did not work")
		found(t, r, model.Control, "final control")
	})
}

// A server that dies between the last look at it and the last probe would have been alive, and denied it.
func TestServersAreLookedAtAfterTheLastProbe(t *testing.T) {
	th := openTheatre(t)
	var mu sync.Mutex
	var probed, looked time.Time
	note := func(at *time.Time) {
		mu.Lock()
		defer mu.Unlock()
		*at = time.Now()
	}
	r := th.play(t, "isolated", func() {
		th.agent("x/c").tell(lies{probe: func(ctx context.Context, real probes.Agent, batch []probes.Request, deliver func(probes.Response)) error {
			defer note(&probed)
			return real.Probe(ctx, batch, deliver)
		}})
		th.agent("x/b").tell(lies{liveness: func(ctx context.Context, real probes.Agent) ([]probes.ServerStatus, error) {
			note(&looked)
			return real.Liveness(ctx)
		}})
	}, func() {
		th.agent("x/c").tell(lies{})
		th.agent("x/b").tell(lies{})
	}, isolation("last"))
	green(t, r)
	assert.False(t, probed.IsZero())
	assert.True(t, looked.After(probed), "the last look began %v after the last probe ended", looked.Sub(probed))
}

func TestAFakeProberThatDoesNotProbeProvesNothing(t *testing.T) {
	th := openTheatre(t)
	answer := func(r probes.Request, o probes.Outcome, sent bool) probes.Response {
		return probes.Response{ID: r.ID, Nonce: r.Nonce, Outcome: o, Sent: sent, SentAt: time.Now()}
	}
	for _, tc := range []struct {
		name   string
		probe  probeFunc
		reason string
	}{
		{"it fails", func(context.Context, probes.Agent, []probes.Request, func(probes.Response)) error {
			return errors.New("stream lost")
		}, "the prober gave no result: stream lost"},
		{"it says nothing", func(context.Context, probes.Agent, []probes.Request, func(probes.Response)) error { return nil },
			"the prober gave no result"},
		{"it answers other requests than were made", insteadOfSending(func(r probes.Request) probes.Response {
			r.ID = 1000 - r.ID
			return answer(r, probes.Timeout, true)
		}), "the prober gave no result"},
		{"it answers with the nonces of others", insteadOfSending(func(r probes.Request) probes.Response {
			r.Nonce += "x"
			return answer(r, probes.Timeout, true)
		}), "the prober gave no result"},
		{"it times out without having sent", insteadOfSending(func(r probes.Request) probes.Response { return answer(r, probes.Timeout, false) }),
			"the probe was not sent"},
		{"it lies that it sent, and that nothing came back", insteadOfSending(func(r probes.Request) probes.Response { return answer(r, probes.Timeout, true) }),
			"the prober of x/c could not reach its own server"},
		{"it lies that all was refused", insteadOfSending(func(r probes.Request) probes.Response { return answer(r, probes.Reset, true) }),
			"the prober of x/c could not reach its own server"},
		{"it calls TCP unsupported", insteadOfSending(func(r probes.Request) probes.Response { return answer(r, probes.Unsupported, false) }),
			"TCP is unsupported, which it cannot be"},
		{"it has an outcome of its own", insteadOfSending(func(r probes.Request) probes.Response { return answer(r, "gone", true) }),
			`prober error: outcome "gone"`},
		{"it cannot send", insteadOfSending(func(r probes.Request) probes.Response {
			out := answer(r, probes.Error, false)
			out.Errno = "EMFILE"
			return out
		}), "prober error: EMFILE"},
		{"it sees nothing of answers that came", afterSending(func(r probes.Response) probes.Response {
			r.Outcome, r.By = probes.Timeout, probes.Identity{}
			return r
		}), ""},
		{"it says that it sent in the far future", insteadOfSending(func(r probes.Request) probes.Response {
			out := answer(r, probes.Timeout, true)
			out.SentAt = out.SentAt.Add(time.Hour)
			return out
		}), "the prober of x/c could not reach its own server"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := th.lie(t, "x/c", lies{probe: tc.probe}, isolation("prober"))
			notGreen(t, r)
			onlyPassed(t, stepOf(t, r, "open"))
			step := stepOf(t, r, "isolated")
			assert.Equal(t, all(passed, fromC(inconclusive)), results(step))
			for _, c := range []string{"x/c x/a", "x/c x/b"} {
				assert.Contains(t, cells(step)[c].Reason, tc.reason, c)
				assert.NotEmpty(t, cells(step)[c].Reason, c)
			}
		})
	}
}

// A pod that only probes is nobody's destination, and has to show all the same that it can probe.
func TestAFakeProberThatNobodyProbesIsCaughtByItsOwnServer(t *testing.T) {
	th := openTheatre(t)
	r := th.lie(t, "x/c", lies{probe: insteadOfSending(func(r probes.Request) probes.Response {
		return probes.Response{ID: r.ID, Nonce: r.Nonce, Outcome: probes.Timeout, Sent: true}
	})}, scene("source", trio, `
  probes: [{from: x/c, to: x/b}]
  steps:
    - name: isolated`+isolateB+`
      expect: {default: deny}`))
	notGreen(t, r)
	cell := cells(stepOf(t, r, "isolated"))["x/c x/b"]
	assert.Equal(t, inconclusive, cell.Result)
	assert.Contains(t, cell.Reason, "the prober of x/c could not reach its own server")
}

func TestAFakeDestinationThatDoesNotTellWhatItSawProvesNoDenial(t *testing.T) {
	th := openTheatre(t)
	for _, tc := range []struct {
		name   string
		lies   lies
		reason string
	}{
		{"its memory fails", lies{records: func(context.Context, probes.Agent, []probes.Nonce) ([]probes.Record, error) {
			return nil, probes.ErrForgotten
		}}, "the destination could not say whether it saw the probe: record forgotten"},
		{"it has seen the probe", lies{records: func(_ context.Context, _ probes.Agent, nonces []probes.Nonce) ([]probes.Record, error) {
			out := make([]probes.Record, len(nonces))
			for i, n := range nonces {
				out[i].Nonce = n
			}
			return out, nil
		}}, "the server saw the probe, but its answer did not come back"},
		// Only after the sampling is a destination asked for many at once.
		{"it sees the probes when their prober has given up", lies{records: func(ctx context.Context, real probes.Agent, nonces []probes.Nonce) ([]probes.Record, error) {
			if len(nonces) == 1 {
				return real.Records(ctx, nonces)
			}
			return []probes.Record{{Nonce: nonces[len(nonces)-1]}}, nil
		}}, "the server saw the probe, but its answer did not come back"},
		{"it cannot look for its servers", lies{liveness: func(context.Context, probes.Agent) ([]probes.ServerStatus, error) {
			return nil, errors.New("stream lost")
		}}, "the server of x/b was not alive: stream lost"},
		{"its servers are unknown", lies{liveness: func(context.Context, probes.Agent) ([]probes.ServerStatus, error) {
			return []probes.ServerStatus{{Port: model.Port{Number: 80, Protocol: model.TCP}, Unknown: true}}, nil
		}}, "the server of x/b was not alive: it was never looked at"},
		{"it has no servers to look for", lies{liveness: func(context.Context, probes.Agent) ([]probes.ServerStatus, error) {
			return nil, nil
		}}, "the server of x/b was not alive"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := th.lie(t, "x/b", tc.lies, isolation("destination"))
			notGreen(t, r)
			step := stepOf(t, r, "isolated")
			assert.Equal(t, all(passed, map[string]model.Result{"x/c x/b": inconclusive}), results(step))
			assert.Contains(t, cells(step)["x/c x/b"].Reason, tc.reason)
		})
	}
}

func TestAFakeAgentThatNeverAnswersDoesNotHoldUpTheRun(t *testing.T) {
	th := openTheatre(t)
	for _, tc := range []struct {
		name   string
		agent  model.Endpoint
		lies   lies
		want   map[string]model.Result
		reason string
	}{
		{"when it probes", "x/c", lies{probe: func(ctx context.Context, _ probes.Agent, _ []probes.Request, _ func(probes.Response)) error {
			<-ctx.Done()
			return ctx.Err()
		}}, fromC(inconclusive), "the prober gave no result"},
		{"when it is asked what it saw", "x/b", lies{records: func(ctx context.Context, _ probes.Agent, _ []probes.Nonce) ([]probes.Record, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}}, map[string]model.Result{"x/c x/b": inconclusive}, "the destination could not say whether it saw the probe"},
		{"when it looks for its servers", "x/b", lies{liveness: func(ctx context.Context, _ probes.Agent) ([]probes.ServerStatus, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}}, map[string]model.Result{"x/c x/b": inconclusive}, "the server of x/b was not alive"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			began := time.Now()
			r := th.play(t, "isolated", func() {
				th.session.pace.giveUp()
				th.session.pace.Agent = time.Second
				th.agent(tc.agent).tell(tc.lies)
			}, func() { th.agent(tc.agent).tell(lies{}) }, isolation("hanging"))
			assert.Less(t, time.Since(began), patience/2)
			notGreen(t, r)
			step := stepOf(t, r, "isolated")
			assert.Equal(t, all(passed, tc.want), results(step))
			assert.Contains(t, cells(step)["x/c x/b"].Reason, tc.reason)
		})
	}
}

func TestAFakeServerUnderAnotherIdentityIsNotTheDestination(t *testing.T) {
	th := openTheatre(t)
	for name, by := range map[string]func(probes.Identity) probes.Identity{
		"another pod":                   func(probes.Identity) probes.Identity { return probes.Identity{Endpoint: "x/c", UID: "1"} },
		"an earlier pod of the name":    func(id probes.Identity) probes.Identity { id.UID = "1"; return id },
		"a server that names nobody":    func(probes.Identity) probes.Identity { return probes.Identity{} },
		"a server that names no pod ID": func(id probes.Identity) probes.Identity { id.UID = ""; return id },
	} {
		t.Run(name, func(t *testing.T) {
			r := th.lie(t, "x/a", lies{probe: afterSending(func(r probes.Response) probes.Response {
				if r.Outcome == probes.Answered && r.By.Endpoint == "x/b" {
					r.By = by(r.By)
				}
				return r
			})}, isolation("identity"))
			notGreen(t, r)
			step := stepOf(t, r, "isolated")
			assert.Equal(t, all(passed, map[string]model.Result{"x/a x/b": inconclusive}), results(step))
			assert.Contains(t, cells(step)["x/a x/b"].Reason, "which is not the destination")
		})
	}
}

func TestWhatDropsEverythingIsNotAPolicy(t *testing.T) {
	th := openTheatre(t)
	drop := func(pods ...model.Endpoint) func() {
		return func() {
			for _, e := range pods {
				require.NoError(t, th.lab.DropTraffic(th.lab.pod(t, e)))
			}
		}
	}
	t.Run("at one pod", func(t *testing.T) {
		r := th.play(t, "open", nil, drop("x/b"), isolation("drop"))
		notGreen(t, r)
		step := stepOf(t, r, "isolated")
		want := toB(inconclusive)
		want["x/b x/a"], want["x/b x/c"] = inconclusive, inconclusive
		assert.Equal(t, all(passed, want), results(step))
		assert.Contains(t, cells(step)["x/c x/b"].Reason, "after all policies were deleted the connection still did not work")
		found(t, r, model.Control, "with all policies deleted there is still no connection: x/a->x/b:80/TCP/IPv4/podIP")
	})
	t.Run("at every pod", func(t *testing.T) {
		r := th.play(t, "open", nil, drop("x/a", "x/b", "x/c"), isolation("drop"))
		notGreen(t, r)
		assert.Equal(t, all(inconclusive, nil), results(stepOf(t, r, "isolated")))
	})
	t.Run("at every pod, before there is a baseline", func(t *testing.T) {
		th.reached = func(p *corev1.Pod) { require.NoError(t, th.lab.DropTraffic(p)) }
		r := th.play(t, "open", func() {}, nil, isolation("drop"))
		th.reached = nil
		notGreen(t, r)
		step := stepOf(t, r, "isolated")
		assert.Equal(t, all(inconclusive, nil), results(step))
		assert.Contains(t, cells(step)["x/c x/b"].Reason, "no baseline: before any policy the connection was not answered")
	})
	t.Run("and the next scenario is not affected", func(t *testing.T) {
		green(t, th.play(t, "", nil, nil, isolation("drop")))
	})
	t.Run("at the canaries", func(t *testing.T) {
		t.Cleanup(func() { require.NoError(t, shared.clear()) }) // nobody fixes them
		r := th.play(t, "open", nil, func() {
			th.session.pace.giveUp()
			drop(stage.CanaryNamespace+"/canary-0", stage.CanaryNamespace+"/canary-1")()
		}, isolation("drop"))
		notGreen(t, r)
		step := stepOf(t, r, "isolated")
		assert.Equal(t, all(passed, map[string]model.Result{"x/c x/b": inconclusive}), results(step))
		assert.False(t, step.Controls.CanaryAllowed)
		found(t, r, model.Control, "the canary that must be allowed was not")
	})
}

func TestAClusterWithoutConnectionsIsOneFinding(t *testing.T) {
	l := sharedCluster(t)
	f := withFakes(l)
	f.reached = func(p *corev1.Pod) { require.NoError(t, l.DropTraffic(p)) }
	r := play(t, f, Options{}, isolation("drop"))
	notGreen(t, r)
	assert.Empty(t, r.Scenarios)
	assert.False(t, r.Complete)
	require.Len(t, r.Findings, 1)
	assert.Equal(t, model.NoConnectivity, r.Findings[0].Kind)
}

// A canary that is denied because nobody listens shows nothing about the network plugin.
func TestAFakeCanaryWhoseServersDiedIsNoControl(t *testing.T) {
	th := openTheatre(t)
	r := th.lie(t, stage.CanaryNamespace+"/canary-1", lies{liveness: func(ctx context.Context, real probes.Agent) ([]probes.ServerStatus, error) {
		status, err := real.Liveness(ctx)
		for i := range status {
			if status[i].Port.Number == stage.CanaryDenied {
				status[i].Alive, status[i].Detail = false, "it stopped"
			}
		}
		return status, err
	}}, isolation("canary"))
	notGreen(t, r)
	assert.Equal(t, all(passed, map[string]model.Result{"x/c x/b": inconclusive}), results(stepOf(t, r, "isolated")))
	found(t, r, model.Control, "the server of the canary netproof-canary/canary-1 was not alive: port 7001/TCP: it stopped")
}

func TestWhatHappensBehindTheRunsBackVoidsTheStep(t *testing.T) {
	th := openTheatre(t)
	l := th.lab
	merge := func(patch string) []byte { return []byte(patch) }
	pods, namespaces := l.client.CoreV1().Pods("x"), l.client.CoreV1().Namespaces()
	policies := l.client.NetworkingV1().NetworkPolicies("x")
	text := scene("back", trio, `
    services: [{name: x/web, selector: {app: b}, ports: [80/TCP]}]
  probes:
    - {from: "*", to: x/*}
    - {from: x/c, to: x/web, via: service}
  steps:
    - name: open
      expect: {default: allow}
    - name: isolated`+isolateB+openC+exceptToB)
	everything := networkingv1.NetworkPolicySpec{PodSelector: metav1.LabelSelector{MatchLabels: map[string]string{"app": "none"}}}
	for _, tc := range []struct {
		name    string
		do      func(ctx context.Context) error
		message string
		// again plays the scenario once more, to show that the sabotage is undone.
		again bool
	}{
		{"the policy is removed", func(ctx context.Context) error {
			return policies.Delete(ctx, "isolate-b", metav1.DeleteOptions{})
		}, "NetworkPolicy x/isolate-b was removed behind the run's back", false},
		{"the policy is removed and applied again", func(ctx context.Context) error {
			p, err := policies.Get(ctx, "isolate-b", metav1.GetOptions{})
			if err != nil {
				return err
			}
			if err := policies.Delete(ctx, "isolate-b", metav1.DeleteOptions{}); err != nil {
				return err
			}
			p.ObjectMeta = metav1.ObjectMeta{Name: p.Name, Labels: p.Labels}
			_, err = policies.Create(ctx, p, metav1.CreateOptions{})
			return err
		}, "NetworkPolicy x/isolate-b was removed behind the run's back", false},
		{"the policy is changed", func(ctx context.Context) error {
			_, err := policies.Patch(ctx, "isolate-b", types.MergePatchType, merge(`{"spec":{"ingress":[{}]}}`), metav1.PatchOptions{})
			return err
		}, "NetworkPolicy x/isolate-b was changed behind the run's back", false},
		{"somebody adds a policy", func(ctx context.Context) error {
			_, err := policies.Create(ctx, &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Name: "foreign"}, Spec: everything}, metav1.CreateOptions{})
			return err
		}, "NetworkPolicy x/foreign appeared behind the run's back", true},
		{"a pod gets another label", func(ctx context.Context) error {
			_, err := pods.Patch(ctx, "c", types.MergePatchType, merge(`{"metadata":{"labels":{"app":"a"}}}`), metav1.PatchOptions{})
			return err
		}, "the labels of pod x/c were changed behind the run's back", true},
		{"the namespace gets another label", func(ctx context.Context) error {
			_, err := namespaces.Patch(ctx, "x", types.MergePatchType, merge(`{"metadata":{"labels":{"team":"red"}}}`), metav1.PatchOptions{})
			return err
		}, "the labels of namespace x were changed behind the run's back", true},
		{"a pod is deleted", func(ctx context.Context) error {
			return deletePod(ctx, l, "x", "c")
		}, "pod x/c was deleted during the run", true},
		{"a pod is replaced", func(ctx context.Context) error {
			return replacePod(ctx, t, l, "x", "c")
		}, "pod x/c was replaced during the run", true},
		{"a pod like those of the run appears", func(ctx context.Context) error {
			pod := l.pod(t, "x/c")
			pod.ObjectMeta = metav1.ObjectMeta{Name: "d", Labels: pod.Labels}
			_, err := pods.Create(ctx, pod, metav1.CreateOptions{})
			return err
		}, "pod x/d appeared behind the run's back", true},
		{"a service is deleted", func(ctx context.Context) error {
			return l.client.CoreV1().Services("x").Delete(ctx, "web", metav1.DeleteOptions{})
		}, "service x/web was deleted during the run", false},
		{"a service is turned to other pods", func(ctx context.Context) error {
			_, err := l.client.CoreV1().Services("x").Patch(ctx, "web", types.MergePatchType, merge(`{"spec":{"selector":{"app":"c"}}}`), metav1.PatchOptions{})
			return err
		}, "service x/web was changed behind the run's back", true},
		{"the network plugin's own policy is changed", func(ctx context.Context) error {
			_, err := l.calico(t).Patch(ctx, "default.open", types.MergePatchType, merge(`{"spec":{"order":1}}`), metav1.PatchOptions{})
			return err
		}, "NetworkPolicy x/default.open was changed behind the run's back", false},
		{"the network plugin's own policy is removed", func(ctx context.Context) error {
			return l.calico(t).Delete(ctx, "default.open", metav1.DeleteOptions{})
		}, "NetworkPolicy x/default.open was removed behind the run's back", false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := th.play(t, "isolated", func() { require.NoError(t, tc.do(soon(t))) }, nil, text)
			notGreen(t, r)
			onlyPassed(t, stepOf(t, r, "open"))
			step := stepOf(t, r, "isolated")
			for _, c := range step.Cells {
				assert.Equal(t, inconclusive, c.Result, c.ID)
				assert.Contains(t, c.Reason, tc.message, c.ID)
			}
			assert.False(t, step.Controls.Held)
			found(t, r, model.Control, `step "isolated": `+tc.message)
		})
		if !tc.again {
			continue
		}
		t.Run(tc.name+", and the next scenario is not affected", func(t *testing.T) {
			green(t, th.play(t, "", nil, nil, text))
		})
	}
}

func deletePod(ctx context.Context, l *lab, ns, name string) error {
	return l.client.CoreV1().Pods(ns).Delete(ctx, name, *metav1.NewDeleteOptions(0))
}

// replacePod deletes a pod, makes the same once more, and waits until it is ready.
func replacePod(ctx context.Context, t *testing.T, l *lab, ns, name string) error {
	if err := remakePod(ctx, t, l, ns, name); err != nil {
		return err
	}
	eventually(t, func() string {
		now, err := l.client.CoreV1().Pods(ns).Get(ctx, name, metav1.GetOptions{})
		switch {
		case err != nil:
			return err.Error()
		case !podIsReady(now):
			return "pod " + name + " is not ready"
		}
		return ""
	})
	return nil
}

func remakePod(ctx context.Context, t *testing.T, l *lab, ns, name string) error {
	pods := l.client.CoreV1().Pods(ns)
	old, err := pods.Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return err
	}
	if err := deletePod(ctx, l, ns, name); err != nil {
		return err
	}
	again := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: old.Labels}, Spec: old.Spec}
	eventually(t, func() string {
		if _, err := pods.Create(ctx, again, metav1.CreateOptions{}); err != nil {
			return err.Error()
		}
		return ""
	})
	return nil
}

// The kernels shake hands for a server that gets no processor: the prober's way to it is whole.
func TestAProberWhoseOwnServerIsStarvedProvesDenials(t *testing.T) {
	th := openTheatre(t)
	var own atomic.Int64
	green(t, th.lie(t, "x/c", lies{probe: afterSending(func(r probes.Response) probes.Response {
		if r.By.Endpoint == "x/c" && own.Add(1)%2 == 0 {
			return probes.Response{ID: r.ID, Nonce: r.Nonce, Outcome: probes.Timeout, Sent: true, Connected: true}
		}
		return r
	})}, isolation("starved")))
	assert.GreaterOrEqual(t, own.Load(), int64(2))
}

// A step without changes has no barrier, so it has only the canaries to tell whether policies are enforced.
func TestWithoutItsCanariesAStepProvesNoDenial(t *testing.T) {
	th := openTheatre(t)
	text := isolation("canaries", "    - name: still isolated"+exceptToB)
	doubted := func(t *testing.T, r model.Run, why string) {
		t.Helper()
		notGreen(t, r)
		onlyPassed(t, stepOf(t, r, "isolated"))
		step := stepOf(t, r, "still isolated")
		assert.Equal(t, all(passed, map[string]model.Result{"x/c x/b": inconclusive}), results(step))
		assert.Contains(t, cells(step)["x/c x/b"].Reason, why)
		assert.False(t, step.Controls.Held)
		found(t, r, model.Control, `step "still isolated": `+why)
	}
	policies := th.lab.client.NetworkingV1().NetworkPolicies(stage.CanaryNamespace)
	t.Run("the one that must be denied is not", func(t *testing.T) {
		var kept *networkingv1.NetworkPolicyList
		r := th.play(t, "still isolated", func() {
			var err error
			kept, err = policies.List(soon(t), metav1.ListOptions{})
			require.NoError(t, err)
			require.NoError(t, policies.DeleteCollection(soon(t), metav1.DeleteOptions{}, metav1.ListOptions{}))
			from, to := th.agent(stage.CanaryNamespace+"/canary-0"), th.lab.pod(t, stage.CanaryNamespace+"/canary-1")
			eventually(t, func() string { return answers(from, to.Status.PodIP, stage.CanaryDenied) })
		}, func() {
			for _, p := range kept.Items {
				p.ObjectMeta = metav1.ObjectMeta{Name: p.Name, Labels: p.Labels}
				_, err := policies.Create(soon(t), &p, metav1.CreateOptions{})
				require.NoError(t, err)
			}
		}, text)
		doubted(t, r, "the canary that must be denied was not")
	})
	t.Run("the one that must be allowed is not", func(t *testing.T) {
		canary := func() *fakeAgent { return th.agent(stage.CanaryNamespace + "/canary-0") }
		r := th.play(t, "still isolated", func() {
			canary().tell(lies{probe: insteadOfSending(func(r probes.Request) probes.Response {
				return probes.Response{ID: r.ID, Nonce: r.Nonce, Outcome: probes.Timeout, Sent: true}
			})})
		}, func() { canary().tell(lies{}) }, text)
		doubted(t, r, "the canary that must be allowed was not")
	})
	t.Run("but one whose program is starved is not cut off", func(t *testing.T) {
		canary := func() *fakeAgent { return th.agent(stage.CanaryNamespace + "/canary-0") }
		r := th.play(t, "still isolated", func() {
			canary().tell(lies{probe: afterSending(func(r probes.Response) probes.Response {
				if r.Outcome == probes.Answered { // the kernels shook hands, and the answer is late
					return probes.Response{ID: r.ID, Nonce: r.Nonce, Outcome: probes.Timeout, Sent: true, Connected: true}
				}
				return r
			})})
		}, func() { canary().tell(lies{}) }, text)
		green(t, r)
		assert.True(t, stepOf(t, r, "still isolated").Controls.Held)
	})
	t.Run("they cannot be probed", func(t *testing.T) {
		canary := func() *fakeAgent { return th.agent(stage.CanaryNamespace + "/canary-0") }
		r := th.play(t, "still isolated", func() {
			canary().tell(lies{probe: func(context.Context, probes.Agent, []probes.Request, func(probes.Response)) error {
				return errors.New("stream lost")
			}})
		}, func() { canary().tell(lies{}) }, text)
		doubted(t, r, "the canaries could not be probed")
	})
}

// answers says what is missing until an address answers.
func answers(from probes.Agent, ip string, port int) (missing string) {
	request := probes.Request{Nonce: "test", Protocol: model.TCP, Address: netip.MustParseAddr(ip), Port: port, TimeoutMs: 100}
	missing = fmt.Sprintf("no answer from %s port %d", ip, port)
	err := from.Probe(context.Background(), []probes.Request{request}, func(r probes.Response) {
		if r.Outcome == probes.Answered {
			missing = ""
		}
	})
	if err != nil {
		return err.Error()
	}
	return missing
}

// A connection that did not work before the policies is not cut by them, whatever it does afterwards.
func TestAConnectionThatDidNotWorkBeforeIsNotDeniedByAPolicy(t *testing.T) {
	th := openTheatre(t)
	var silent atomic.Bool
	t.Cleanup(func() { th.wrap = nil })
	silent.Store(true)
	th.wrap = func(a *fakeAgent) {
		if a.Identity().Endpoint == "x/b" {
			a.tell(lies{records: func(ctx context.Context, real probes.Agent, nonces []probes.Nonce) ([]probes.Record, error) {
				if silent.Load() {
					return nil, nil
				}
				return real.Records(ctx, nonces)
			}})
		}
		if a.Identity().Endpoint == "x/c" {
			a.tell(lies{probe: afterSending(func(r probes.Response) probes.Response {
				if silent.Load() && r.By.Endpoint == "x/b" {
					r.Outcome, r.By, r.Connected = probes.Timeout, probes.Identity{}, false
				}
				return r
			})})
		}
	}
	th.session.key = "" // so that these pods are made anew, with agents that lie
	r := th.play(t, "isolated", nil, func() { silent.Store(false) }, isolation("before"))
	notGreen(t, r)
	for _, name := range []string{"open", "isolated"} {
		step := stepOf(t, r, name)
		assert.Equal(t, all(passed, map[string]model.Result{"x/c x/b": inconclusive}), results(step), name)
		assert.Contains(t, cells(step)["x/c x/b"].Reason, "no baseline: before any policy the connection was not answered", name)
	}
}

// A node that takes its time is waited for, and what it does until then counts neither for nor against a policy.
func TestASlowNodeIsWaitedFor(t *testing.T) {
	th := openTheatre(t)
	const late = time.Second
	var resume func()
	th.hooks(
		at("isolated", func() { time.AfterFunc(late, resume) }),
		at("open", func() { resume = th.lab.pause(t, "node-1/felix") }))
	r := th.playHooked(t, isolation("slow"))
	green(t, r)
	assert.GreaterOrEqual(t, stepOf(t, r, "isolated").EnforcedMs, late.Milliseconds())
}

func TestACanaryThatIsReplacedVoidsTheStep(t *testing.T) {
	l := sharedCluster(t)
	var now bounds
	r := play(t, l, Options{tune: now.keep, BeforeSampling: at("isolated", func() {
		now.giveUp()
		require.NoError(t, replacePod(soon(t), t, l, stage.CanaryNamespace, "canary-1"))
	})}, isolation("canary"))
	notGreen(t, r)
	assert.Equal(t, all(inconclusive, nil), results(stepOf(t, r, "isolated")))
	found(t, r, model.Control, "pod netproof-canary/canary-1 was replaced during the run")
}

func TestAnInterruptedRunKeepsWhatItJudgedAndRestores(t *testing.T) {
	l := sharedCluster(t)
	text := scene("interrupted", trio, "  steps:",
		"    - name: open\n      expect: {default: allow}",
		`    - name: changed
      label: {pods: {x/c: {app: other}}, namespaces: {x: {team: red}}}`+isolateB+exceptToB,
		"    - name: never\n      expect: {default: allow, rules: [{from: \"*\", to: x/b, verdict: deny}, {from: x/a, to: x/b, verdict: allow}]}")
	for _, tc := range []struct {
		name string
		end  func(t *testing.T) (ctx context.Context, sampling func())
	}{
		{"by a signal", func(t *testing.T) (context.Context, func()) {
			ctx, cancel := context.WithCancelCause(t.Context())
			return ctx, func() { cancel(errors.New("interrupt")) }
		}},
		{"by the overall deadline", func(t *testing.T) (context.Context, func()) {
			ctx := &lateContext{Context: t.Context(), done: make(chan struct{})}
			return ctx, func() { close(ctx.done) }
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			ctx, end := tc.end(t)
			f := withFakes(l)
			var before, after *corev1.Pod
			lanes := OpenLanes(ctx, f, Options{BeforeSampling: at("changed", func() {
				before = l.pod(t, "x/c")
				f.agent("x/a").tell(lies{probe: atBatch(2, end)})
			})})
			p := prepare(t, text)
			began := time.Now()
			out, err := lanes.Prove(ctx, p.Scenarios()[0])
			require.NoError(t, err)
			assert.Less(t, time.Since(began), patience/2, "it ends without waiting for what cannot come")

			assert.Equal(t, model.Interrupted, out.Result)
			require.Len(t, out.Steps, 2)
			onlyPassed(t, out.Steps[0])
			for name, c := range cells(out.Steps[1]) {
				assert.Equal(t, inconclusive, c.Result, name)
				assert.Contains(t, c.Reason, "the run was ended before this step was settled", name)
			}
			for _, f := range out.Findings {
				assert.NotContains(t, f.Message, "took up the change", "an interruption says nothing about a node")
			}

			after = l.pod(t, "x/c")
			assert.Equal(t, before.UID, after.UID)
			assert.Equal(t, "c", after.Labels["app"], "restored")
			ns, err := l.client.CoreV1().Namespaces().Get(soon(t), "x", metav1.GetOptions{})
			require.NoError(t, err)
			assert.Equal(t, "blue", ns.Labels["team"], "restored")
			policies, err := l.client.NetworkingV1().NetworkPolicies("x").List(soon(t), metav1.ListOptions{})
			require.NoError(t, err)
			assert.Empty(t, policies.Items, "restored")

			lanes.Close(ctx)
			result := lanes.Result()
			assert.Equal(t, model.Interrupted, result.Summary.Result)
			assert.False(t, result.Complete)
			assert.NotEqual(t, model.ExitOK, model.ExitCode(result))
			assert.False(t, result.Summary.CleanupFailed)
		})
	}
	t.Run("Run says that it is not complete", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		r := playUntil(ctx, t, l, Options{BeforeSampling: at("changed", cancel)}, text, isolation("second"))
		assert.Equal(t, model.Interrupted, r.Summary.Result)
		assert.False(t, r.Complete)
		assert.Len(t, r.Scenarios, 1)
	})
	t.Run("before the first scenario", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		r := playUntil(ctx, t, l, Options{}, text)
		assert.False(t, r.Complete)
		assert.Equal(t, model.ExitInconclusive, model.ExitCode(r))
		assert.Empty(t, r.Scenarios)
	})
}

// lateContext is a context that a test ends as if its deadline had passed.
type lateContext struct {
	context.Context
	done chan struct{}
}

func (c *lateContext) Done() <-chan struct{} { return c.done }

func (c *lateContext) Err() error {
	select {
	case <-c.done:
		return context.DeadlineExceeded
	default:
		return nil
	}
}

// contradicted is a table that the specification cannot speak about, because a policy of another kind is in force. It
// is wrong.
const contradicted = `
    - name: contradicted
      apply:
        - apiVersion: crd.projectcalico.org/v1
          kind: NetworkPolicy
          metadata: {name: default.allow, namespace: x}
          spec: {selector: all(), types: [Ingress], ingress: [{action: Allow}]}
      expect:
        default: allow
        rules: [{from: x/c, to: x/b, verdict: deny}]`

func TestAProvenMismatchFails(t *testing.T) {
	l := sharedCluster(t)
	r := play(t, l, Options{}, scene("mismatch", trio, "  steps:", contradicted))
	assert.Equal(t, model.ExitMismatch, model.ExitCode(r))
	step := stepOf(t, r, "contradicted")
	assert.Equal(t, all(passed, map[string]model.Result{"x/c x/b": model.Failed}), results(step))
	cell := cells(step)["x/c x/b"]
	assert.Equal(t, "expected deny, observed allow", cell.Reason)
	assert.Equal(t, "x/b", cell.Evidence.AnsweredBy)
	assert.NotEmpty(t, cell.Evidence.Series, "the evidence is kept")
	assert.True(t, step.Controls.Held)
}

func TestWhatDoesNotSettleInTimeIsNotJudged(t *testing.T) {
	l := sharedCluster(t)
	// What is as expected settles long before that, on a busy machine too; the mismatch would take longer.
	r := play(t, l, Options{Settle: 5 * time.Second, tune: func(p *pace) { p.MismatchWindow = time.Hour }}, scene("unsettled", trio, "  steps:", contradicted))
	notGreen(t, r)
	step := stepOf(t, r, "contradicted")
	assert.Equal(t, all(passed, map[string]model.Result{"x/c x/b": inconclusive}), results(step))
	assert.Equal(t, "not settled within 5s", cells(step)["x/c x/b"].Reason)
}

func TestAConnectionThatFlapsIsFlaky(t *testing.T) {
	l := sharedCluster(t)
	f := withFakes(l)
	n := 0
	r := play(t, f, Options{BeforeSampling: at("isolated", func() {
		f.agent("x/a").tell(lies{probe: func(ctx context.Context, real probes.Agent, batch []probes.Request, deliver func(probes.Response)) error {
			n++
			return real.Probe(ctx, batch, func(r probes.Response) {
				if n%4 == 0 && r.By.Endpoint == "x/b" {
					r = probes.Response{ID: r.ID, Nonce: r.Nonce, Outcome: probes.Timeout, Sent: true, SentAt: r.SentAt}
				}
				deliver(r)
			})
		}})
		f.agent("x/b").tell(lies{records: func(context.Context, probes.Agent, []probes.Nonce) ([]probes.Record, error) { return nil, nil }})
	})}, isolation("flapping"))
	assert.Equal(t, model.ExitInconclusive, model.ExitCode(r))
	assert.NotEqual(t, passed, results(stepOf(t, r, "isolated"))["x/a x/b"])
}

func TestCleanUpThatFailsIsTold(t *testing.T) {
	l := sharedCluster(t)
	const hold = `{"metadata":{"finalizers":["netproof.dev/held"]}}`
	const free = `{"metadata":{"finalizers":null}}`

	t.Run("a namespace that does not go", func(t *testing.T) {
		namespaces := l.client.CoreV1().Namespaces()
		var now bounds
		r := play(t, l, Options{tune: now.keep, AfterSampling: at("isolated", func() {
			now.cleanup = 2 * time.Second
			_, err := namespaces.Patch(soon(t), "x", types.MergePatchType, []byte(hold), metav1.PatchOptions{})
			require.NoError(t, err)
		})}, isolation("held"))
		_, err := namespaces.Patch(soon(t), "x", types.MergePatchType, []byte(free), metav1.PatchOptions{})
		require.NoError(t, err)
		eventually(t, func() string { return strings.Join(l.left(t), ", ") })

		assert.Equal(t, model.ExitCleanupFailed, model.ExitCode(r))
		assert.Equal(t, passed, r.Summary.Result, "what was proven stays proven")
		assert.True(t, r.Summary.CleanupFailed)
		found(t, r, model.Cleanup, "namespace x is still there (held by its finalizers netproof.dev/held")
		found(t, r, model.Cleanup, "kubectl patch namespaces x")
	})
	t.Run("a policy that does not go", func(t *testing.T) {
		policies := l.client.NetworkingV1().NetworkPolicies("x")
		var now bounds
		r := play(t, l, Options{tune: now.keep, AfterSampling: at("isolated", func() {
			now.cleanup = 2 * time.Second
			_, err := policies.Patch(soon(t), "isolate-b", types.MergePatchType, []byte(hold), metav1.PatchOptions{})
			require.NoError(t, err)
		})}, isolation("held"))
		_, err := policies.Patch(soon(t), "isolate-b", types.MergePatchType, []byte(free), metav1.PatchOptions{})
		require.NoError(t, err)
		eventually(t, func() string { return strings.Join(l.left(t), ", ") })

		// The policy is still in force, so the connection that it cuts has no control.
		notGreen(t, r)
		assert.Equal(t, inconclusive, results(stepOf(t, r, "isolated"))["x/c x/b"])
		assert.True(t, r.Summary.CleanupFailed)
		found(t, r, model.Cleanup, "NetworkPolicy x/isolate-b is still there, held by its finalizers netproof.dev/held")
		found(t, r, model.Cleanup, "kubectl patch networkpolicy.networking.k8s.io isolate-b -n x")
	})
}

func TestWrongInputCreatesNothing(t *testing.T) {
	l := sharedCluster(t)
	before := l.left(t)
	t.Run("a table that the specification contradicts", func(t *testing.T) {
		_, err := expect.Prepare(load(t, scene("wrong", trio, "  steps:", "    - name: isolated"+isolateB+"      expect: {default: allow}")), expect.Options{Families: []model.IPFamily{model.IPv4}, Nodes: 2})
		var d *expect.Disagreement
		require.ErrorAs(t, err, &d)
		assert.Equal(t, "x/c->x/b:80/TCP/IPv4/podIP", d.Connection.String())
		assert.Equal(t, "allow", d.Written)
		assert.Equal(t, "deny by ingress", d.Computed)
		assert.Contains(t, err.Error(), "0.scenario.yaml:")
		assert.Contains(t, err.Error(), "isolate-b")
		assert.Equal(t, before, l.left(t))
	})
	t.Run("a table that live addresses contradict", func(t *testing.T) {
		text := scene("wrong", trio, "  steps:", `
    - name: by address
      apply:
        - apiVersion: networking.k8s.io/v1
          kind: NetworkPolicy
          metadata: {name: by-address, namespace: x}
          spec:
            podSelector: {matchLabels: {app: b}}
            policyTypes: [Ingress]
            ingress: [{from: [{ipBlock: {cidr: "$(cidr:x/a)"}}]}]
      expect: {default: allow}`)
		_, _, err := Run(t.Context(), l, prepare(t, text), Options{})
		var d *expect.Disagreement
		require.ErrorAs(t, err, &d)
		assert.Equal(t, model.Endpoint("x/c"), d.Connection.From)
		assert.Equal(t, before, l.left(t), "all is gone")
	})
	for name, object := range map[string]string{
		"a policy that a custom resource's schema refuses": `
          apiVersion: crd.projectcalico.org/v1
          kind: NetworkPolicy
          metadata: {name: default.bad, namespace: x}
          spec: {selector: all(), ingress: [{action: Allow, protocol: [TCP]}]}`,
		"an object with an unknown field": `
          apiVersion: crd.projectcalico.org/v1
          kind: GlobalNetworkPolicy
          metadata: {name: default.bad}
          spec: {selektor: all()}`,
		"a kind that this cluster does not have, and of which nothing is known": `
          apiVersion: policy.networking.k8s.io/v1alpha2
          kind: ClusterNetworkPolicy
          metadata: {name: bad}
          spec: {priority: 10, subject: {namespaces: {}}}`,
	} {
		t.Run(name, func(t *testing.T) {
			text := scene("refused", trio, "  steps:", "    - name: refused\n      apply:\n        -"+object[10:]+"\n      expect: {default: allow}")
			made := false
			f := withFakes(l)
			f.reached = func(*corev1.Pod) { made = true }
			_, _, err := Run(t.Context(), f, prepare(t, text, isolation("fine")), Options{Allow: scenario.Reaches()})
			var problems scenario.Problems
			require.ErrorAs(t, err, &problems)
			require.Len(t, problems, 1)
			assert.Equal(t, "0.scenario.yaml", problems[0].File)
			assert.Positive(t, problems[0].Line)
			assert.NotEmpty(t, problems[0].Fix)
			assert.False(t, made, "not even the canaries")
			assert.Equal(t, before, l.left(t))
		})
	}
}
