package plain_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"regexp"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/netproof/netproof/harness/plain"
)

func TestOrdinaryTextStaysAsItIs(t *testing.T) {
	for _, text := range []string{
		"", "uptime_start: 1", "x/a -> x/b 80/TCP", "fd00::1/64 and fe80::1", "b::error::c", "größer", "日本語", "a\u00a0b", "# heading", "a #1", "-- x", "->", "…│✓✗",
		"team_a", "C:\\x", "'quoted' \"text\"", "100%",
	} {
		assert.Equal(t, text, plain.Text(text))
		var b bytes.Buffer
		_, err := plain.NewWriter(&b, false).Write([]byte(text))
		require.NoError(t, err)
		assert.Equal(t, text, b.String())
	}
}

func TestTextIsOneLineWithoutHiddenCharacters(t *testing.T) {
	for text, want := range map[string]string{
		"a\nb\tc\r\nd\v\f\u0085\u2028\u2029e":     "a b c  d     e",
		"\x1b[2J\x00\x07\x7f\u009b31m":            "\uFFFD[2J\uFFFD\uFFFD\uFFFD\uFFFD31m",
		"a\u202eb\u2066c\u200fd\u061ce\u200bf":    "a\uFFFDb\uFFFDc\uFFFDd\uFFFDe\uFFFDf",
		"a\U000e0041\ufeff\u00ad\ufe0f\u3164\xff": "a\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD",
	} {
		assert.Equal(t, want, plain.Text(text))
	}
}

func TestCommandsOfCISystemsAreBroken(t *testing.T) {
	for text, want := range map[string]string{
		"::error::x":                      `\::error::x`,
		" \u3000::error::x":               " \u3000" + `\::error::x`,
		"x\n::error::":                    "x ::error::",
		"\n::error::":                     ` \::error::`,
		"see ##[error]x":                  `see #\#[error]x`,
		"a ##vso[task.complete]":          `a #\#vso[task.complete]`,
		"####teamcity[x]":                 `#\#\#\#teamcity[x]`,
		"--- group":                       `\--- group`,
		"  +++ group":                     `  \+++ group`,
		"~~~ group":                       `\~~~ group`,
		"^^^ +++":                         `\^^^ +++`,
		"travis_fold:start:x":             `travis_\fold:start:x`,
		"section_start:1:x[collapsed]":    `section_\start:1:x[collapsed]`,
		"section_end:1:x and travis_time": `section_\end:1:x and travis_time`,
	} {
		assert.Equal(t, want, plain.Text(text))
	}
}

func TestAWriterGuardsEveryLine(t *testing.T) {
	for text, want := range map[string]string{
		"a\n::error::x\n  ::warning::y\n": "a\n\\::error::x\n  \\::warning::y\n",
		"### heading\n":                   "### heading\n",
		"##[error]\n###vso[x\n":           "#\\#[error]\n##\\#vso[x\n",
		"a\tb\r\nc\rd\n":                  "a b\nc d\n",
		"\x1b[1m::error::\x1b[0m":         "\uFFFD[1m::error::\uFFFD[0m",
		"\r\x1b[Kx":                       " \uFFFD[Kx",
	} {
		var b bytes.Buffer
		w := plain.NewWriter(&b, false)
		n, err := w.Write([]byte(text))
		require.NoError(t, err)
		assert.Equal(t, len(text), n)
		assert.Equal(t, want, b.String())
	}
}

func TestAWriterWithStylesLetsOnlyOursThrough(t *testing.T) {
	var b bytes.Buffer
	_, err := plain.NewWriter(&b, true).Write([]byte("\r\x1b[K\x1b[1;31mred\x1b[0m \x1b[2J \x1b]0;title\a \x1b[31m\n\x1b[1m::error::x"))
	require.NoError(t, err)
	assert.Equal(t, "\r\x1b[K\x1b[1;31mred\x1b[0m \uFFFD[2J \uFFFD]0;title\uFFFD \uFFFD[31m\n\x1b[1m\\::error::x", b.String())
}

func TestAWriterIsNotFooledByPieces(t *testing.T) {
	const text = "é✓\u202e\n::error::x ##vso[a] ##[b]\n  ::c::"
	var b bytes.Buffer
	w := plain.NewWriter(&b, false)
	for i := range len(text) {
		_, err := w.Write([]byte(text[i : i+1]))
		require.NoError(t, err)
	}
	assert.Equal(t, "é✓\uFFFD\n:\\:error::x ##\\vso[a] ##\\[b]\n  :\\:c::", b.String())
}

type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, errors.New("disk full") }

func TestAWriterReturnsTheErrorBehindIt(t *testing.T) {
	_, err := plain.NewWriter(broken{}, false).Write([]byte("x"))
	require.EqualError(t, err, "disk full")
	assert.Equal(t, broken{}, plain.Unwrap(plain.NewWriter(broken{}, true)))
	assert.Equal(t, broken{}, plain.Unwrap(broken{}))
}

func TestJSONHidesNothingAndLosesNothing(t *testing.T) {
	const text = "a\x1b\x7f\u0085\u202e\U000e0041 ##vso[x] ###[y] section_start:1 -> <&>"
	data, err := plain.JSON(map[string]string{"k": text}, "  ")
	require.NoError(t, err)
	assert.Equal(t, "{\n  \"k\": \"a\\u001b\\u007f\\u0085\\u202e\\udb40\\udc41 #\\u0023vso[x] #\\u0023\\u0023[y] section_\\u0073tart:1 -> <&>\"\n}\n", string(data))
	var back map[string]string
	require.NoError(t, json.Unmarshal(data, &back))
	assert.Equal(t, text, back["k"])
}

var command = regexp.MustCompile(`(?m)^\s*(::|---|\+\+\+|~~~|\^\^\^)|##[A-Za-z\[]|(travis|section)_(fold|time|start|end):`)

// FuzzText looks at what [plain.Text], [plain.Writer] and [plain.JSON] let through, in words of its own.
func FuzzText(f *testing.F) {
	for _, seed := range []string{"a", "::error::x", "\x1b[2J", "a\n ##vso[x]", "\u202e\u2028\ufeff\xff", "é\xc3", "travis_fold:start:x", "###\u00a0---"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, in string) {
		text := plain.Text(in)
		check(t, text, "")
		assert.NotContains(t, text, "##")
		assert.Equal(t, text, plain.Text(text), "once is enough")
		var whole, pieces bytes.Buffer
		_, err := plain.NewWriter(&whole, false).Write([]byte(in))
		require.NoError(t, err)
		check(t, whole.String(), "\n")
		w := plain.NewWriter(&pieces, false)
		for _, r := range in {
			_, err := w.Write([]byte(string(r)))
			require.NoError(t, err)
		}
		for _, line := range strings.Split(pieces.String(), "\n") {
			assert.NotRegexp(t, `^\s*::|##[A-Za-z\[]`, line)
		}
		data, err := plain.JSON([]string{in}, "")
		require.NoError(t, err)
		check(t, string(data), "\n")
		var back []string
		require.NoError(t, json.Unmarshal(data, &back))
		assert.Equal(t, string([]rune(in)), back[0])
	})
}

func check(t *testing.T, text, allowed string) {
	t.Helper()
	require.True(t, utf8.ValidString(text))
	assert.NotRegexp(t, command, text)
	for _, r := range text {
		if !strings.ContainsRune(allowed, r) && (unicode.IsControl(r) || unicode.Is(unicode.Cf, r) || r == 0x2028 || r == 0x2029) {
			t.Errorf("%U in %q", r, text)
		}
	}
}
