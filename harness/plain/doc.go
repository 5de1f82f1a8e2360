// Package plain makes text that came from outside safe to look at. File names, keys, label values, messages of API
// servers and saved reports are chosen by others; terminals, CI logs, spreadsheets and web pages act on some of what
// they may hold.
//
// [Text] is for one such string, where it enters a message or a report. [Writer] stands before a whole stream, for what
// somebody forgot to pass through Text. [JSON] is for JSON, whose readers get every character back.
//
// What is taken out or broken:
//
//   - control characters (C0, DEL, C1), and so every escape sequence of a terminal;
//   - characters that reorder or hide text: bidi controls, zero width characters, tags, variation selectors, separators
//     of lines and paragraphs, noncharacters, and bytes that are not UTF-8;
//   - commands to CI systems, which read them from logs.
package plain
