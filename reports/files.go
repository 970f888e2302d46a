package reports

// Files returns the whole report: report.html and every table in every format, by
// path below the report's directory.
func Files(s *Study) (map[string][]byte, error) {
	files := map[string][]byte{}
	tables := Tables(s)
	for _, f := range Formats() {
		for _, t := range tables {
			b, err := Render(f, t)
			if err != nil {
				return nil, err
			}
			files["tables/"+t.Name+"."+f.Extension()] = b
		}
	}
	b, err := Render(HTML, tables...)
	if err != nil {
		return nil, err
	}
	files["report.html"] = b
	return files, nil
}
