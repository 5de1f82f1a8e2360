package expect

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/netproof/netproof/harness/model"
	"github.com/netproof/netproof/harness/scenario"
	"github.com/netproof/netproof/harness/semantics"
)

// firstHead begins a first netproof.yaml.
const firstHead = `# yaml-language-server: $schema=https://raw.githubusercontent.com/netproof/netproof/main/harness/scenario/schema/assertions.schema.json
#
# What the policies of this folder are for. It was written from what they do now: read each line, and ask
# whether it is what you want. Change what is not; netproof list and run then say what the policies do instead.
apiVersion: netproof.dev/v1alpha1
kind: Assertions
metadata:
  name: %s
spec:
  # Whom the folder does not mention is asked about as well: pods without labels, a pod in a namespace of its own, a
  # node, an address outside the cluster. To ask about fewer: strangers: [pods, namespace, node, outside]
  #
  # Real addresses that policies or intents speak of:
  # hosts: [{name: payments, address: 203.0.113.10, ports: [443]}]
  #
  # Groups of namespaces that nothing connects:
  # - isolate: {namespaces: [dev, test, prod]}
`

// door is a port of a workload, and who comes in by it.
type door struct {
	to, port string
	// by are those who come in, refused those who do not, and open those of whom it is not known.
	by, refused, open []string
	// strangers are those among them whom the folder does not mention.
	strangers map[string]bool
}

// FirstAssertions writes a first netproof.yaml for a folder of manifests: who reaches each workload now, as intents.
func FirstAssertions(s *scenario.Scenario, families []model.IPFamily, nodes int) ([]byte, error) {
	plan, err := s.Plan(families, nodes)
	if err != nil {
		return nil, err
	}
	step := &plan.Steps[len(plan.Steps)-1]
	policies, err := unresolvedPolicies(step, families)
	if err != nil {
		return nil, err
	}
	t := &step.Topology
	evaluator, err := semantics.New(t, policies.policies)
	if err != nil {
		return nil, err
	}
	var doors []*door
	for i := range t.Pods {
		pod := &t.Pods[i]
		if pod.Stranger || pod.HostNetwork || pod.Twin {
			continue
		}
		for _, port := range pod.Ports {
			d, err := doorOf(evaluator, step, t, pod, port, families)
			if err != nil {
				return nil, err
			}
			doors = append(doors, d)
		}
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, firstHead, s.Metadata.Name)
	var intents []string
	for _, d := range merged(doors) {
		intents = append(intents, d.intents()...)
	}
	if len(intents) == 0 {
		b.WriteString("  intents: []\n")
		return b.Bytes(), nil
	}
	if !slices.ContainsFunc(intents, func(line string) bool { return strings.HasPrefix(line, "    - ") }) {
		intents = append([]string{"  intents: []"}, intents...)
	} else {
		intents = append([]string{"  intents:"}, intents...)
	}
	b.WriteString(strings.Join(intents, "\n") + "\n")
	return b.Bytes(), nil
}

// nameOf is what rules call a pod: by its workload, if policies cannot tell its replicas apart.
func nameOf(pod *model.Pod) string {
	if pod.Twin {
		return pod.Namespace + "/" + pod.Workload
	}
	return string(pod.Endpoint())
}

func doorOf(evaluator *semantics.Evaluator, step *scenario.PlannedStep, t *model.Topology, to *model.Pod, port model.Port, families []model.IPFamily) (*door, error) {
	d := &door{to: nameOf(to), port: port.String(), strangers: map[string]bool{}}
	verdicts := map[string]model.Verdict{}
	var order []string
	for i := range t.Pods {
		from := &t.Pods[i]
		if i != slices.IndexFunc(t.Pods, func(p model.Pod) bool { return p.Endpoint() == to.Endpoint() }) {
			name := nameOf(from)
			d.strangers[name] = from.Stranger
			if _, known := verdicts[name]; !known {
				order = append(order, name)
			}
			for _, family := range families {
				c := model.Connection{From: from.Endpoint(), To: to.Endpoint(), Port: port.Number, Protocol: port.Protocol, IPFamily: family, Via: model.ViaPodIP}
				decided, err := evaluator.Decide(c)
				if err != nil {
					return nil, err
				}
				v := decided.Verdict
				if len(scenario.Undecided(step.Unjudged, c)) > 0 || verdicts[name] != "" && verdicts[name] != v {
					v = model.Undefined
				}
				verdicts[name] = v
			}
		}
	}
	for _, name := range order {
		switch verdicts[name] {
		case model.Allow:
			d.by = append(d.by, name)
		case model.Deny:
			d.refused = append(d.refused, name)
		default:
			d.open = append(d.open, name)
		}
	}
	return d, nil
}

// merged puts ports of a workload together that the same come in by.
func merged(doors []*door) (out []*door) {
	for _, d := range doors {
		i := slices.IndexFunc(out, func(have *door) bool {
			return have.to == d.to && slices.Equal(have.by, d.by) && slices.Equal(have.open, d.open)
		})
		if i < 0 {
			out = append(out, d)
			continue
		}
		out[i].port += ", " + d.port
	}
	return out
}

// intents say who comes in, a line each.
func (d *door) intents() (out []string) {
	ports := fmt.Sprintf(", ports: [%s]", d.port)
	switch {
	case len(d.refused) == 0 && len(d.open) == 0:
		return []string{fmt.Sprintf("    # %s (%s) is open to every pod, strangers included. Is that what you want?", d.to, d.port)}
	case len(d.by) == 0 && len(d.open) == 0:
		return []string{fmt.Sprintf("    - deny: {from: \"*\", to: %s%s}", d.to, ports)}
	}
	if len(d.refused) > 0 {
		spared := slices.Concat(d.by, d.open)
		slices.Sort(spared)
		out = append(out, fmt.Sprintf("    - deny: {from: \"*\", to: %s%s, except: [%s]}", d.to, ports, strings.Join(spared, ", ")))
	}
	var uninvited []string
	for _, from := range d.by {
		if d.strangers[from] {
			uninvited = append(uninvited, from)
			continue
		}
		out = append(out, fmt.Sprintf("    - allow: {from: %s, to: %s%s}", from, d.to, ports))
	}
	if len(uninvited) > 0 {
		out = append(out, fmt.Sprintf("    # Pods that nobody mentions come in to %s as well: %s. Is that what you want?", d.to, strings.Join(uninvited, ", ")))
	}
	if len(d.open) > 0 {
		out = append(out, fmt.Sprintf("    # Nobody can tell whether %s may come in: see netproof explain.", cmp.Or(strings.Join(d.open, ", "), "others")))
	}
	return out
}
