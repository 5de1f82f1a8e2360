// Package hostile is for tests: strings that steer terminals, CI systems, spreadsheets and pages, every field of every
// file format that netproof reads, for them to be put into, and eyes for every form of output. What is looked for is
// said here in words of its own, not by package plain, which it checks.
package hostile

// Strings are hostile, each with much of what has an effect somewhere.
var Strings = []string{
	"x\n::error file=a.go,line=1::injected\r##vso[task.setvariable variable=PATH]/evil\n##teamcity[buildStatus status='SUCCESS']\n\x1b[2J\x1b[32mpassed\x1b[0m",
	"::warning::x ##[error]y\u202egnp\u2066 \u200b\ufeff\U000e0041\u009b31m\u2028::error::z",
	"=HYPERLINK(\"https://evil.invalid\",\"x\")@team www.evil.invalid #1 GH-2 a/b#3 ![x](https://evil.invalid) <img src=x> `code` | ``` ~~~ 0123456789abcdef0123456789abcdef01234567",
	" +++ section\x00\xff\xfe--- x;=1+1|=2\ttravis_fold:start:x\rsection_start:1:x\r\x1b[0K",
	"::",
}
