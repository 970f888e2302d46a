package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path"

	"github.com/spf13/cobra"
	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/term"

	"github.com/longalign/longalign-go/datasets/fetch"
)

func newFetchCommand() *cobra.Command {
	var o fetch.Options
	var asJSON bool
	c := &cobra.Command{
		Use:   "fetch [NAME...]",
		Short: "Bring benchmark and instruction files from their publishers into the user's cache",
		Long: `fetch downloads files from their publishers' addresses and keeps them in the user's cache (or where LONGALIGN_FETCHED says), where
$FETCHED in experiment files finds them. The first fetch records the files' digests in a lock file; every later one must give the
same files. Without NAME it lists what there is.`,
		Example: `  starter fetch
  starter fetch longalign-10k longalpaca-12k sharegpt
  starter fetch jieba --lock fetch.lock.json
  starter fetch longbench --mirror https://mirror.example.org`,
		RunE: func(c *cobra.Command, names []string) error {
			if len(names) == 0 {
				return listFetchable(c.OutOrStdout(), asJSON)
			}
			return fetchAll(c.Context(), names, o, asJSON, c.OutOrStdout(), c.ErrOrStderr())
		},
	}
	c.Flags().StringVar(&o.Dir, "dir", "", "directory for the files (default: longalign in the user's cache, or LONGALIGN_FETCHED)")
	c.Flags().StringVar(&o.Lock, "lock", "", "lock file with the digests (default: fetch.lock.json in the directory)")
	c.Flags().StringVar(&o.Mirror, "mirror", "", "address that replaces scheme and host of the publishers' addresses")
	c.Flags().BoolVar(&o.Update, "update", false, "accept files other than the recorded ones, and record them")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func listFetchable(w io.Writer, asJSON bool) error {
	if asJSON {
		type item struct {
			Name  string `json:"name"`
			About string `json:"about"`
			Home  string `json:"home"`
		}
		var items []item
		for _, i := range fetch.Table {
			items = append(items, item{i.Name, i.About, i.Home})
		}
		return printJSON(w, items)
	}
	t := newTextTable(w, "NAME", "WHAT", "TERMS AND HOME")
	for _, i := range fetch.Table {
		t.row(i.Name, i.About, i.Home)
	}
	return t.flush()
}

func fetchAll(ctx context.Context, names []string, o fetch.Options, asJSON bool, stdout, stderr io.Writer) error {
	var items []fetch.Item
	for _, name := range names {
		item, err := fetch.Find(name)
		if err != nil {
			return usageError{err}
		}
		items = append(items, item)
	}
	for _, item := range items {
		bars := newDownloadBars(stderr)
		o.Progress = bars.show
		r, err := fetch.Get(ctx, http.DefaultClient, item, o)
		bars.end()
		if err != nil {
			return err
		}
		if asJSON {
			if err := printJSON(stdout, r); err != nil {
				return err
			}
			continue
		}
		verdict := "its digests are recorded"
		switch {
		case r.Present:
			verdict = "it was there, as recorded"
		case r.Locked:
			verdict = "it is as recorded"
		}
		fmt.Fprintf(stdout, "%s: %d files in %s; %s\n", r.Name, len(r.Files), r.Dir, verdict)
	}
	return nil
}

// downloadBars show downloads at a terminal.
type downloadBars struct {
	progress *mpb.Progress
	bars     map[string]*mpb.Bar
}

func newDownloadBars(w io.Writer) *downloadBars {
	f, ok := w.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return &downloadBars{}
	}
	return &downloadBars{progress: mpb.New(mpb.WithOutput(w), mpb.WithWidth(40)), bars: map[string]*mpb.Bar{}}
}

func (d *downloadBars) show(url string, done, total int64) {
	if d.progress == nil {
		return
	}
	bar := d.bars[url]
	if bar == nil {
		bar = d.progress.AddBar(max(total, 0), mpb.PrependDecorators(decor.Name(path.Base(url)+" ")), mpb.AppendDecorators(decor.CountersKibiByte("% .1f / % .1f")))
		d.bars[url] = bar
	}
	if total > 0 {
		bar.SetTotal(total, false)
	}
	bar.SetCurrent(done)
}

func (d *downloadBars) end() {
	for _, bar := range d.bars {
		bar.SetTotal(-1, true)
	}
	if d.progress != nil {
		d.progress.Wait()
	}
}
