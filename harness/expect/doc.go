// Package expect says what is expected of every cell, before a packet is sent. It merges the tables that people wrote
// with what the specification of NetworkPolicy says, and refuses where the two differ. It asks no cluster: what depends
// on addresses that only running pods have stays pending until somebody gives them.
//
//   - prepare.go plans scenarios and makes what is known of their tables;
//   - table.go makes the table of one step;
//   - disagreement.go has the errors of what is written and what the specification says, and puts the two together;
//   - needs.go says which cells need a feature that a network plugin lacks;
//   - reviewed.go compares computed tables with those that were reviewed, the expected.txt beside a scenario;
//   - strict.go says where green would prove less than it seems to;
//   - explain.go answers a question about one connection.
package expect
