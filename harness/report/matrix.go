package report

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/netproof/netproof/harness/model"
	"github.com/netproof/netproof/harness/plain"
)

// grid is one matrix: who reaches whom on a port.
type grid struct {
	// titles are the ports that share this matrix.
	titles []string
	rows   []string
	cols   []string
	at     [][]entry
	// apart is the number of the first row of a stranger, which stand below the others; 0 if there is none.
	apart int
	// keys explain abbreviated labels.
	keys []string
}

// lane is what the cells of one matrix have in common.
type lane struct {
	port     int
	protocol model.Protocol
	family   model.IPFamily
	via      model.Via
}

// grids arranges the cells of a step into matrices, one per port, family and way; those that look alike are merged.
// Strangers stand below the others.
func grids(cells []model.Cell, withFamily bool, strangers []model.Endpoint) []grid {
	isStranger := map[string]bool{}
	for _, e := range strangers {
		isStranger[plain.Text(string(e))] = true
	}

	order := map[string]int{}
	sources := map[string]bool{}
	note := func(e model.Endpoint) {
		if _, ok := order[string(e)]; !ok {
			order[string(e)] = len(order)
		}
	}
	byLane := map[lane][]model.Cell{}
	var lanes []lane
	for _, c := range cells {
		if !slices.Contains(strangers, c.From) {
			note(c.From)
		}
	}
	for _, c := range cells {
		note(c.From)
		sources[string(c.From)] = !slices.Contains(strangers, c.From)
		l := lane{c.Port, c.Protocol, c.IPFamily, c.Via}
		if byLane[l] == nil {
			lanes = append(lanes, l)
		}
		byLane[l] = append(byLane[l], c)
	}
	for _, c := range cells {
		note(c.To)
	}
	first := map[lane]int{}
	for l, of := range byLane {
		first[l] = len(order)
		for _, c := range of {
			first[l] = min(first[l], order[string(c.To)])
		}
	}
	// In the order of the destinations that serve them, so that ports come as the pods do.
	slices.SortStableFunc(lanes, func(a, b lane) int {
		return cmp.Or(cmp.Compare(a.via, b.via), cmp.Compare(first[a], first[b]), cmp.Compare(a.port, b.port))
	})
	var out []grid
	seen := map[string]int{}
	for _, l := range lanes {
		g := makeGrid(byLane[l], order, sources)
		g.setApart(isStranger)
		id := fmt.Sprint(g.rows, g.cols, g.at)
		title := portTitle(l.port, l.protocol, l.family, l.via, withFamily)
		if i, ok := seen[id]; ok {
			out[i].titles = append(out[i].titles, title)
			continue
		}
		seen[id] = len(out)
		g.titles = []string{title}
		out = append(out, g)
	}
	return out
}

// setApart finds the first row of a stranger, unless all are.
func (g *grid) setApart(isStranger map[string]bool) {
	for i, row := range g.rows {
		if g.apart == 0 && isStranger[row] {
			g.apart = i
		}
	}
}

// portTitle names a port, and the family and the way where they are not plain.
func portTitle(port int, protocol model.Protocol, family model.IPFamily, via model.Via, withFamily bool) string {
	title := fmt.Sprintf("%d/%s", port, protocol)
	if withFamily {
		title += " " + string(family)
	}
	if via != model.ViaPodIP && via != "" {
		title += " via " + string(via)
	}
	return plain.Text(title)
}

// makeGrid arranges the cells of one port. A destination that is a source elsewhere in the step is a row here as well,
// also when there is nobody else here that it could reach: so the matrices of a step have the same rows, and can share
// them.
func makeGrid(cells []model.Cell, order map[string]int, sources map[string]bool) grid {
	var g grid
	for _, c := range cells {
		g.rows = append(g.rows, string(c.From))
		g.cols = append(g.cols, string(c.To))
		if sources[string(c.To)] {
			g.rows = append(g.rows, string(c.To))
		}
	}
	byOrder := func(a, b string) int { return order[a] - order[b] }
	for _, names := range []*[]string{&g.rows, &g.cols} {
		slices.SortFunc(*names, byOrder)
		*names = slices.Compact(*names)
	}
	rowIndex, colIndex := indexOf(g.rows), indexOf(g.cols)
	g.at = make([][]entry, len(g.rows))
	for i, row := range g.rows {
		g.at[i] = make([]entry, len(g.cols))
		for j, col := range g.cols {
			g.at[i][j] = entry{symNone, markNone}
			if row == col {
				g.at[i][j].symbol = symSelf
			}
		}
	}
	for _, c := range cells {
		g.at[rowIndex[string(c.From)]][colIndex[string(c.To)]] = entryOf(c)
	}
	for _, names := range [][]string{g.rows, g.cols} {
		for i := range names {
			names[i] = plain.Text(names[i])
		}
	}
	return g
}

func indexOf(names []string) map[string]int {
	index := make(map[string]int, len(names))
	for i, name := range names {
		index[name] = i
	}
	return index
}

func entryOf(c model.Cell) entry {
	observed := symUnknown
	switch c.Observed {
	case model.Allow:
		observed = symAllow
	case model.Deny:
		observed = symDeny
	case model.Unsupported:
		observed = symUnsupported
	}
	switch c.Result {
	case model.Passed:
		if c.OneSided && observed == symDeny {
			return entry{observed, markOneSided}
		}
		return entry{observed, markNone}
	case model.Failed:
		return entry{observed, markMismatch}
	case model.Flaky:
		return entry{symFlaky, markNone}
	case model.ResultUnsupported:
		return entry{symUnsupported, markNone}
	case model.Recorded:
		return entry{observed, markOpen}
	default:
		return entry{symUnknown, markNone}
	}
}

// tall is the number of rows above which a matrix is worth abbreviating even if it is narrow enough.
const tall = 24

// renderGrids gives the blocks of lines for the matrices of a step. Those of the same sources stand in one block as
// long as it fits, so that the sources are named once.
func renderGrids(all []grid, st style, limit int, verbose bool) [][]string {
	var blocks [][]string
	for len(all) > 0 {
		if block, n := band(all, st, limit); n > 1 {
			blocks = append(blocks, block)
			all = all[n:]
			continue
		}
		blocks = append(blocks, all[0].render(st, limit, verbose))
		all = all[1:]
	}
	return blocks
}

// band draws as many of the first matrices as possible in one block, and says how many these are.
func band(all []grid, st style, limit int) ([]string, int) {
	n := 1
	for n < len(all) && slices.Equal(all[n].rows, all[0].rows) && len(all[0].rows) <= tall {
		n++
	}
	for ; n > 1; n-- {
		for _, form := range []headerForm{fullHeader, splitHeader} {
			if lines := drawNamed(all[:n], st, form); fits(lines, limit) {
				return lines, n
			}
		}
	}
	return nil, 0
}

// render gives the lines of a matrix that fits into the width, by the first of these that does: as it is; with
// namespaces and names of the columns on two lines; with endpoints that behave alike drawn together; with numbered
// columns; in panels.
func (g grid) render(st style, limit int, verbose bool) []string {
	lines := drawNamed([]grid{g}, st, fullHeader)
	if !fits(lines, limit) {
		lines = drawNamed([]grid{g}, st, splitHeader)
	}
	if fits(lines, limit) && (verbose || len(g.rows) <= tall) {
		return lines
	}
	if small := g.collapse(st); !verbose && 2*(len(small.rows)+len(small.cols)) <= len(g.rows)+len(g.cols) {
		return small.render(st, limit, true)
	}
	if fits(lines, limit) {
		return lines
	}
	if lines = g.drawNumbered(st, 0, g.cols); fits(lines, limit) {
		return lines
	}
	return g.panels(st, limit)
}

// panels cuts a matrix that is too wide into several below each other.
func (g grid) panels(st style, limit int) []string {
	label := columns(g.drawNumbered(st, 0, g.cols)[0]) - numberedWidth*len(g.cols)
	perPanel := max(1, (limit-label)/numberedWidth)
	var out []string
	for from := 0; from < len(g.cols); from += perPanel {
		to := min(from+perPanel, len(g.cols))
		part := grid{titles: g.titles, rows: g.rows, cols: g.cols[from:to], apart: g.apart}
		for _, row := range g.at {
			part.at = append(part.at, row[from:to])
		}
		if to == len(g.cols) {
			part.keys = g.keys
		}
		if from > 0 {
			out = append(out, "")
		}
		out = append(out, part.drawNumbered(st, from, g.cols)...)
	}
	return out
}

func fits(lines []string, limit int) bool {
	for _, line := range lines {
		if columns(line) > limit {
			return false
		}
	}
	return true
}

// headerForm is how the names of the columns are written.
type headerForm int

const (
	// fullHeader: namespace/name.
	fullHeader headerForm = iota
	// splitHeader: namespace and name below each other.
	splitHeader
)

// numberedWidth is the width of a numbered column, its distance to the one before included.
const numberedWidth = 4

// maxTitle is the longest title that stands beside the names of the columns; others get a line of their own.
const maxTitle = 24

// drawNamed draws matrices that have the same rows, beside each other, with the names of the columns above.
func drawNamed(all []grid, st style, form headerForm) []string {
	height := 1
	if form == splitHeader {
		height = 2
	}
	heads := make([][][]string, len(all))
	widths := make([][]int, len(all))
	for k, g := range all {
		for _, col := range g.cols {
			head := []string{col}
			if form == splitHeader {
				namespace, name, ok := strings.Cut(col, "/")
				head = []string{namespace, name}
				if !ok {
					head = []string{"", col}
				}
			}
			heads[k] = append(heads[k], head)
			w := 3
			for _, line := range head {
				w = max(w, columns(line))
			}
			widths[k] = append(widths[k], w)
		}
	}
	title, label := all[0].labels(all[0].rows)
	var lines []string
	if len(all) == 1 {
		lines = append(lines, title.above...)
	} else {
		// Every matrix has its title above its first column.
		title = gridTitle{}
		label = 0
		for _, row := range all[0].rows {
			label = max(label, columns(row))
		}
		line := padRight("", label)
		for k, g := range all {
			text := strings.Join(g.titles, ", ")
			total := 0
			for _, w := range widths[k] {
				total += w + 2
			}
			if short := total - 2; columns(text) > short {
				widths[k][len(widths[k])-1] += columns(text) - short
				total += columns(text) - short
			}
			line += padRight(separator(k, 0)+st.paint(colorBold, text), columns(separator(k, 0))+total-2)
		}
		lines = append(lines, line)
	}
	for h := range height {
		line := padRight("", label)
		if h == height-1 {
			line = padRight(st.paint(colorBold, title.beside), label)
		}
		for k := range all {
			for j, head := range heads[k] {
				line += separator(k, j) + center(head[h], widths[k][j])
			}
		}
		lines = append(lines, line)
	}
	for i, row := range all[0].rows {
		if i > 0 && i == all[0].apart {
			lines = append(lines, "")
		}
		line := padRight(row, label)
		for k, g := range all {
			for j := range g.cols {
				line += separator(k, j) + center(st.entry(g.at[i][j]), widths[k][j])
			}
		}
		lines = append(lines, line)
	}
	for i := range lines {
		lines[i] = strings.TrimRight(lines[i], " ")
	}
	for _, g := range all {
		lines = append(lines, g.keys...)
	}
	return lines
}

// separator is what stands before the column of a matrix: more space where another matrix begins.
func separator(matrix, column int) string {
	if matrix > 0 && column == 0 {
		return "    "
	}
	return "  "
}

// drawNumbered draws the matrix with numbers for names of columns, the first column being the one after the given
// number of all columns. Rows that are columns as well carry their number, the other columns are explained below.
func (g grid) drawNumbered(st style, before int, all []string) []string {
	number := indexOf(all)
	digits := len(strconv.Itoa(len(all)))
	inRows := map[string]bool{}
	rows := make([]string, len(g.rows))
	for i, row := range g.rows {
		inRows[row] = true
		n := ""
		if k, ok := number[row]; ok {
			n = strconv.Itoa(k + 1)
		}
		rows[i] = fmt.Sprintf("%*s %s", digits, n, row)
	}
	title, label := g.labels(rows)
	lines := slices.Clone(title.above)
	line := padRight(st.paint(colorBold, title.beside), label)
	for j := range g.cols {
		line += " " + center(strconv.Itoa(before+j+1), numberedWidth-1)
	}
	lines = append(lines, line)
	for i, row := range rows {
		if i > 0 && i == g.apart {
			lines = append(lines, "")
		}
		line := padRight(row, label)
		for j := range g.cols {
			line += " " + st.entry(g.at[i][j])
		}
		lines = append(lines, line)
	}
	for j, col := range g.cols {
		if !inRows[col] {
			lines = append(lines, fmt.Sprintf("%*d = %s", digits, before+j+1, col))
		}
	}
	for i := range lines {
		lines[i] = strings.TrimRight(lines[i], " ")
	}
	return append(lines, g.keys...)
}

// gridTitle is a title on lines of its own, or beside the names of the columns.
type gridTitle struct {
	above  []string
	beside string
}

// labels says where the title goes and how wide the first column is.
func (g grid) labels(rows []string) (gridTitle, int) {
	label := 0
	for _, row := range rows {
		label = max(label, columns(row))
	}
	text := strings.Join(g.titles, ", ")
	if columns(text) > max(label, maxTitle) {
		return gridTitle{above: wrap(text, "", "", max(60, label))}, label
	}
	return gridTitle{beside: text}, max(label, columns(text))
}

// collapse draws endpoints together that behave alike: as sources, as destinations, and among each other.
func (g grid) collapse(st style) grid {
	rowIndex, colIndex := indexOf(g.rows), indexOf(g.cols)
	names := slices.Clone(g.rows)
	for _, col := range g.cols {
		if _, ok := rowIndex[col]; !ok {
			names = append(names, col)
		}
	}
	// full has every endpoint as a row and as a column; a mark tells absent ones apart.
	n := len(names)
	isRow, isCol := make([]bool, n), make([]bool, n)
	full := make([][]entry, n)
	for a, from := range names {
		full[a] = make([]entry, n)
		i, row := rowIndex[from]
		isRow[a] = row
		_, isCol[a] = colIndex[from]
		for b, to := range names {
			if j, col := colIndex[to]; row && col {
				full[a][b] = g.at[i][j]
			}
		}
	}
	alike := func(a, b int) bool {
		if isRow[a] != isRow[b] || isCol[a] != isCol[b] || full[a][b] != full[b][a] || full[a][a] != full[b][b] {
			return false
		}
		for k := range n {
			if k != a && k != b && (full[a][k] != full[b][k] || full[k][a] != full[k][b]) {
				return false
			}
		}
		return true
	}
	var classes [][]int
next:
	for e := range n {
		for i, class := range classes {
			// Two members stand for all: with three or more, every entry among the members has been compared.
			if alike(class[0], e) && alike(class[len(class)-1], e) {
				classes[i] = append(class, e)
				continue next
			}
		}
		classes = append(classes, []int{e})
	}
	small := grid{titles: g.titles}
	var rowClasses, colClasses [][]int
	for _, class := range classes {
		first := class[0]
		label := names[first]
		if len(class) > 1 {
			var members []string
			for _, e := range class {
				members = append(members, names[e])
			}
			label = fmt.Sprintf("%s +%d", label, len(class)-1)
			small.keys = append(small.keys, fmt.Sprintf("%s = %s", label, compress(members, st)))
		}
		if isRow[first] {
			if g.apart > 0 && small.apart == 0 && rowIndex[names[first]] >= g.apart {
				small.apart = len(small.rows)
			}
			small.rows = append(small.rows, label)
			rowClasses = append(rowClasses, class)
		}
		if isCol[first] {
			small.cols = append(small.cols, label)
			colClasses = append(colClasses, class)
		}
	}
	for _, from := range rowClasses {
		var line []entry
		for _, to := range colClasses {
			member := to[0]
			if from[0] == member && len(to) > 1 {
				member = to[1]
			}
			line = append(line, full[from[0]][member])
		}
		small.at = append(small.at, line)
	}
	return small
}

// compress writes a list of names short: those that differ only in a number at their end, and follow each other, as a
// range.
func compress(names []string, st style) string {
	var parts []string
	for i := 0; i < len(names); {
		stem, number, digits := cutNumber(names[i])
		j := i + 1
		for digits > 0 && j < len(names) {
			nextStem, next, nextDigits := cutNumber(names[j])
			// 9 is followed by 10, but 09 is not.
			plain := nextDigits == digits || nextDigits == len(strconv.Itoa(next))
			if nextDigits == 0 || nextStem != stem || next != number+j-i || !plain {
				break
			}
			j++
		}
		switch j - i {
		case 1, 2:
			parts = append(parts, names[i:j]...)
		default:
			_, last, lastDigits := cutNumber(names[j-1])
			parts = append(parts, fmt.Sprintf("%s{%s..%0*d}", stem, names[i][len(stem):], lastDigits, last))
		}
		i = j
	}
	const most = 8
	if len(parts) > most {
		parts = append(parts[:most], fmt.Sprintf("%s (%d)", st.pick("…", "..."), len(names)))
	}
	return strings.Join(parts, ", ")
}

// cutNumber splits a name into what precedes the number at its end, the number, and how many digits it is written with.
func cutNumber(name string) (stem string, number, digits int) {
	stem = strings.TrimRight(name, "0123456789")
	digits = len(name) - len(stem)
	number, err := strconv.Atoi(name[len(stem):])
	if err != nil {
		return name, 0, 0
	}
	return stem, number, digits
}
