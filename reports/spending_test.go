package reports

import "testing"

func TestForecastAndActualStandSideBySide(t *testing.T) {
	s := &Study{Charges: []Charge{
		{What: "teacher", Paid: true, Results: 1, Requests: 10, USD: 2, Forecast: &Bounds{1, 3}, Seconds: 5, Sources: []string{"a"}},
		{What: "tuning", Results: 2, Seconds: 4 * manyHours, Forecasted: 1, ForecastSeconds: 3600, TookSeconds: 7200},
	}}
	table := SpendingTable(s)
	if err := table.Validate(); err != nil {
		t.Fatal(err)
	}
	cell := func(row int, group, column string) Cell {
		for j, c := range table.Columns {
			if c.Group == group && c.Name == column {
				return table.Rows[row].Cells[j]
			}
		}
		t.Fatalf("no column %s, %s", group, column)
		return Cell{}
	}
	for name, tt := range map[string]struct {
		cell Cell
		ok   func(Cell) bool
	}{
		"a teacher's forecast is a range":               {cell(0, "language models", "forecast"), func(c Cell) bool { return c.Text == "1.00–3.00" }},
		"its cost leads to the instructions":            {cell(0, "language models", "cost"), func(c Cell) bool { return c.Value == 2 && c.Sources[0] == "a" }},
		"a training asks nobody":                        {cell(1, "language models", "cost"), func(c Cell) bool { return !c.HasValue() && c.Text == " " }},
		"long times are in hours":                       {cell(1, "time", "took"), func(c Cell) bool { return c.Value == 12 }},
		"a forecast of some of the results says so":     {cell(1, "time", "forecast"), func(c Cell) bool { return c.Value == 1 && len(c.Marks) == 1 }},
		"actual by forecast is of the forecasted alone": {cell(1, "time", "actual by forecast"), func(c Cell) bool { return c.Value == 2 }},
		"the total adds up":                             {cell(2, "", "results"), func(c Cell) bool { return c.Value == 3 }},
	} {
		if !tt.ok(tt.cell) {
			t.Errorf("%s: %+v", name, tt.cell)
		}
	}
}
