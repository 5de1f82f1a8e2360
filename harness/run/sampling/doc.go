// Package sampling sends probes again and again until their series say something, and judges what the series and the
// controls of the same time prove. It knows agents and addresses, and nothing of clusters: a test needs no sandbox.
//
//   - target.go has a cell as the sampler sees it, and its series;
//   - rhythm.go says how often is asked, and how much may be under way;
//   - sampler.go sends rounds; recorder.go asks destinations what they saw;
//   - settle.go, which is pure, says when a series has settled; verdict.go, pure as well, makes a verdict of a settled
//     series and the doubts that the controls leave;
//   - liveness.go looks at servers from inside their own namespaces;
//   - watch.go samples the cells of a step: a beginning, rounds, and an end; controls.go judges its controls;
//   - connect.go tries connections that nothing should cut.
package sampling
