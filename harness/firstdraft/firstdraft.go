package firstdraft

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"github.com/netproof/netproof/harness/expect"
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
  name: %q
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

// Of writes the netproof.yaml: who reaches each workload now, as intents. It is an error if a policy that cannot be
// judged may decide that.
func Of(s *scenario.Scenario, families []model.IPFamily, nodes int) ([]byte, error) {
	reached, err := expect.Reach(s, expect.ReachQuestion{Families: families, Nodes: nodes})
	if err != nil {
		return nil, err
	}
	if len(reached.Unjudged) > 0 {
		return nil, fmt.Errorf("%s: nobody can tell what the policies do: the specification of NetworkPolicy says nothing about %s",
			s.File, scenario.Names(reached.Unjudged))
	}
	plan, err := s.Whole(families, nodes)
	if err != nil {
		return nil, err
	}
	var intents []string
	for _, d := range merged(doorsOf(&plan.Steps[len(plan.Steps)-1].Topology, reached.Decisions)) {
		intents = append(intents, d.intents()...)
	}
	head := "  intents:"
	if !slices.ContainsFunc(intents, func(line string) bool { return strings.HasPrefix(line, "    - ") }) {
		head = "  intents: []"
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, firstHead, s.Metadata.Name)
	b.WriteString(strings.Join(append([]string{head}, intents...), "\n") + "\n")
	return b.Bytes(), nil
}

// nameOf is what rules call a pod: by its workload, if policies cannot tell its replicas apart.
func nameOf(pod *model.Pod) string {
	if pod.Twin {
		return pod.Namespace + "/" + pod.Workload
	}
	return string(pod.Endpoint())
}

// doorsOf sorts decisions by the ports that they lead to. Connections by services, nodes and hosts, and to the network
// of a node, are nothing to begin with.
func doorsOf(t *model.Topology, decisions []semantics.Decision) (doors []*door) {
	type key struct{ to, port string }
	index := map[key]*door{}
	verdicts := map[key]map[string]model.Verdict{}
	names := map[key][]string{}
	for _, d := range decisions {
		c := d.Connection
		from, sends := t.Pod(c.From)
		to, serves := t.Pod(c.To)
		if !sends || !serves || to.HostNetwork || to.Stranger || c.Via != model.ViaPodIP {
			continue
		}
		k := key{nameOf(to), model.Port{Number: c.Port, Protocol: c.Protocol}.String()}
		if index[k] == nil {
			index[k] = &door{to: k.to, port: k.port, strangers: map[string]bool{}}
			verdicts[k] = map[string]model.Verdict{}
			doors = append(doors, index[k])
		}
		name := nameOf(from)
		index[k].strangers[name] = from.Stranger
		have, known := verdicts[k][name]
		if !known {
			names[k] = append(names[k], name)
		}
		verdicts[k][name] = d.Verdict
		if known && have != d.Verdict {
			verdicts[k][name] = model.Undefined
		}
	}
	for _, d := range doors {
		k := key{d.to, d.port}
		for _, name := range names[k] {
			switch verdicts[k][name] {
			case model.Allow:
				d.by = append(d.by, name)
			case model.Deny:
				d.refused = append(d.refused, name)
			default:
				d.open = append(d.open, name)
			}
		}
	}
	return doors
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
		out = append(out, fmt.Sprintf("    # The specification leaves open whether these come in to %s: %s.", d.to, strings.Join(d.open, ", ")))
	}
	return out
}
