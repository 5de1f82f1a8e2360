package kind

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/kind/pkg/log"
	"sigs.k8s.io/yaml"

	"github.com/netproof/netproof/harness/cluster/kind/engine"
)

// logsTimeout bounds the export of logs.
const logsTimeout = 45 * time.Second

func defaultLogs(name string) string { return filepath.Join(os.TempDir(), "netproof-logs-"+name) }

// exportLogs writes what there is to know about a cluster that did not get ready. The client may be nil. What could not
// be had, such as the journal of a node that has ended, stands in incomplete.txt.
func exportLogs(ctx context.Context, e *engine.Engine, name, dir string, client kubernetes.Interface, cause error) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("export logs: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, logsTimeout)
	defer cancel()
	if err := os.WriteFile(filepath.Join(dir, "error.txt"), []byte(cause.Error()+"\n"), 0o644); err != nil {
		return fmt.Errorf("export logs: %w", err)
	}
	var errs []error
	if client != nil {
		errs = append(errs, dumpObjects(ctx, client, dir))
	}
	// kind's collection takes no context. One that does not end is left behind; it ends with the containers.
	collected := make(chan error, 1)
	go func() { collected <- provider(e.Name, log.NoopLogger{}).CollectLogs(name, dir) }()
	select {
	case err := <-collected:
		errs = append(errs, err)
	case <-ctx.Done():
		errs = append(errs, fmt.Errorf("not all were there within %s", logsTimeout))
	}
	if err := errors.Join(errs...); err != nil {
		text := strings.ReplaceAll(err.Error(), ", command ", "\ncommand ")
		if err := os.WriteFile(filepath.Join(dir, "incomplete.txt"), []byte(text+"\n"), 0o644); err != nil {
			return fmt.Errorf("export logs: %w", err)
		}
	}
	return nil
}

// dumpObjects writes what the API server knows of nodes, pods and events, as tables and in full.
func dumpObjects(ctx context.Context, client kubernetes.Interface, dir string) error {
	limit, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	var errs []error
	if list, err := client.CoreV1().Nodes().List(limit, metav1.ListOptions{}); err != nil {
		errs = append(errs, err)
	} else {
		errs = append(errs, writeYAML(dir, "nodes.yaml", list))
	}
	if list, err := client.CoreV1().Pods(metav1.NamespaceAll).List(limit, metav1.ListOptions{}); err != nil {
		errs = append(errs, err)
	} else {
		errs = append(errs, writeYAML(dir, "pods.yaml", list), os.WriteFile(filepath.Join(dir, "pods.txt"), []byte(tableOfPods(list.Items)), 0o644))
	}
	if list, err := client.CoreV1().Events(metav1.NamespaceAll).List(limit, metav1.ListOptions{}); err != nil {
		errs = append(errs, err)
	} else {
		errs = append(errs, os.WriteFile(filepath.Join(dir, "events.txt"), []byte(tableOfEvents(list.Items)), 0o644))
	}
	return errors.Join(errs...)
}

func writeYAML(dir, file string, object any) error {
	text, err := yaml.Marshal(object)
	if err != nil {
		return fmt.Errorf("write %s: %w", file, err)
	}
	return os.WriteFile(filepath.Join(dir, file), text, 0o644)
}

func tableOfPods(pods []corev1.Pod) string {
	return table("NAMESPACE\tNAME\tREADY\tPHASE\tRESTARTS\tNODE\tIP\tWHY", func(row func(format string, args ...any)) {
		for _, p := range pods {
			ready, restarts := 0, int32(0)
			var why []string
			for _, c := range p.Status.ContainerStatuses {
				if c.Ready {
					ready++
				}
				restarts += c.RestartCount
				if w := c.State.Waiting; w != nil {
					why = append(why, c.Name+": "+w.Reason+" "+oneLine(w.Message))
				}
			}
			row("%s\t%s\t%d/%d\t%s\t%d\t%s\t%s\t%s", p.Namespace, p.Name, ready, len(p.Spec.Containers), p.Status.Phase, restarts, p.Spec.NodeName,
				p.Status.PodIP, strings.Join(why, "; "))
		}
	})
}

func tableOfEvents(events []corev1.Event) string {
	return table("LAST\tNAMESPACE\tTYPE\tREASON\tOBJECT\tMESSAGE", func(row func(format string, args ...any)) {
		for _, e := range events {
			row("%s\t%s\t%s\t%s\t%s/%s\t%s", e.LastTimestamp.UTC().Format(time.TimeOnly), e.Namespace, e.Type, e.Reason, e.InvolvedObject.Kind,
				e.InvolvedObject.Name, oneLine(e.Message))
		}
	})
}

func table(head string, rows func(row func(format string, args ...any))) string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, head)
	rows(func(format string, args ...any) { fmt.Fprintf(w, format+"\n", args...) })
	_ = w.Flush() // a builder takes everything
	return b.String()
}
