package reports

import "strings"

// Files returns the whole report by path below its directory: report.html, tables/ with
// every table in every format, figures/ with every figure in every format. What could
// not be made is named in report.html and in problems.txt; everything else is there.
func Files(s *Study) (map[string][]byte, error) {
	files := map[string][]byte{}
	tables := Tables(s)
	figures, problems := Figures(s)
	page, err := renderPage(s, tables, figures, problems)
	if err != nil {
		return nil, err
	}
	files["report.html"] = page
	for _, t := range tables {
		for _, f := range Formats() {
			b, err := Render(f, t)
			if err != nil {
				problems = append(problems, err.Error())
				break
			}
			files["tables/"+t.Name+f.Extension()] = b
		}
	}
	for _, f := range figures {
		for _, format := range FigureFormats() {
			b, err := f.Encode(format)
			if err != nil {
				problems = append(problems, err.Error())
				continue
			}
			files["figures/"+f.Name+"."+string(format)] = b
		}
	}
	if len(problems) > 0 {
		files["problems.txt"] = []byte(strings.Join(problems, "\n") + "\n")
	}
	return files, nil
}
