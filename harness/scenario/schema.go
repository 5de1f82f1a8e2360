package scenario

import _ "embed" // for the schemas

//go:generate go test -count=1 -run ^TestTheSchemasAreCurrent$ . -update

//go:embed schema/scenario.schema.json
var scenarioSchema []byte

//go:embed schema/assertions.schema.json
var assertionsSchema []byte

// Schema returns the JSON Schema of a kind of file: [Kind] or [AssertionsKind]. Editors check files against it while
// they are written; [Load] checks all that it says, and more. It is generated from the types of this package and their
// comments.
func Schema(kind string) ([]byte, bool) {
	switch kind {
	case Kind:
		return scenarioSchema, true
	case AssertionsKind:
		return assertionsSchema, true
	}
	return nil, false
}
