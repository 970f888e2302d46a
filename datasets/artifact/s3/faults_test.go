package s3_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/longalign/longalign-go/datasets/artifact"
	"github.com/longalign/longalign-go/testenv"
)

// proxy stands between the client and the gateway and loses what it is told to lose.
type proxy struct {
	mu     sync.Mutex
	lose   func(*http.Request) bool   // lose the answer: the request is carried out, the connection breaks
	cut    func(*http.Request) int    // break off a body after so many bytes; 0: do not
	hide   func(*http.Request) string // answer 404 with this code; "": do not
	served map[string]int             // requests by method and kind
}

func (p *proxy) count(kind string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.served[kind]
}

// through returns a store that is reached through a new proxy.
func through(t *testing.T, p *proxy) *artifact.Store {
	t.Helper()
	e := gateway(t)
	target, err := url.Parse(e.S3)
	if err != nil {
		t.Fatal(err)
	}
	p.served = map[string]int{}
	forward := &httputil.ReverseProxy{
		// The Host header stays the client's: it is part of what the request's signature covers.
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Scheme, r.Out.URL.Host, r.Out.Host = target.Scheme, target.Host, r.In.Host
		},
		ModifyResponse: func(r *http.Response) error {
			p.mu.Lock()
			defer p.mu.Unlock()
			kind := r.Request.Method
			if r.Request.URL.Query().Has("partNumber") {
				kind += " part"
			}
			p.served[kind]++
			if p.lose != nil && r.StatusCode < 300 && p.lose(r.Request) {
				panic(http.ErrAbortHandler)
			}
			if p.hide != nil {
				if code := p.hide(r.Request); code != "" {
					text := "<Error><Code>" + code + "</Code></Error>"
					r.StatusCode, r.Status, r.Body, r.ContentLength = http.StatusNotFound, "404 Not Found", io.NopCloser(strings.NewReader(text)), int64(len(text))
					r.Header.Set("Content-Length", fmt.Sprint(len(text)))
				}
			}
			if p.cut != nil {
				if n := p.cut(r.Request); n > 0 {
					r.Body = &cutBody{r.Body, n}
				}
			}
			return nil
		},
	}
	server := httptest.NewServer(forward)
	t.Cleanup(server.Close)
	t.Setenv("AWS_ENDPOINT_URL_S3", server.URL)
	return open(t, e.StoreURI(testenv.Unique(t)))
}

type cutBody struct {
	io.ReadCloser
	left int
}

func (c *cutBody) Read(p []byte) (int, error) {
	if c.left == 0 {
		panic(http.ErrAbortHandler)
	}
	n, err := c.ReadCloser.Read(p[:min(len(p), c.left)])
	c.left -= n
	return n, err
}

// once is true the first time a request's path contains the text.
func once(text string) func(*http.Request) bool {
	done := false
	return func(r *http.Request) bool {
		if done || !strings.Contains(r.URL.Path, text) || r.Method == http.MethodGet {
			return false
		}
		done = true
		return true
	}
}

func TestAPutWhoseAnswerWasLostIsFoundToBeOnesOwn(t *testing.T) {
	p := &proxy{lose: once("/blobs/")}
	s := through(t, p)
	if b, err := s.PutBytes(t.Context(), []byte("small")); err != nil || b.Copy != 0 {
		t.Errorf("a small blob: %+v, %v", b, err)
	}
	if n := p.count("PUT"); n != 2 {
		t.Errorf("%d puts, want the lost one and its repetition", n)
	}
	lost := 0
	p.lose = func(r *http.Request) bool {
		if r.Method != http.MethodPost || !r.URL.Query().Has("uploadId") {
			return false
		}
		lost++
		return lost == 1
	}
	data := bytes.Repeat([]byte("large"), artifact.PartSize/4)
	b, err := s.PutBytes(t.Context(), data)
	if err != nil || b.Copy != 0 {
		t.Errorf("a large blob, whose completion was not heard: %+v, %v", b, err)
	}
	if err := s.CheckBlob(t.Context(), b); err != nil || lost < 2 {
		t.Errorf("%d completions, %v", lost, err)
	}

	// A service that is not yet done with another's completion may hide the upload before it shows the object.
	hidden := 0
	lost = 0
	p.hide = func(r *http.Request) string {
		switch {
		case r.Method == http.MethodPost && lost > 1:
			return "NoSuchUpload"
		case r.Method == http.MethodHead && lost > 1 && hidden < 2:
			hidden++
			return "NotFound"
		}
		return ""
	}
	if b, err = s.PutBytes(t.Context(), append(data, '!')); err != nil || b.Copy != 0 || hidden != 2 {
		t.Errorf("a large blob, which was not seen %d times after its completion: %+v, %v", hidden, b, err)
	}

	p.lose, p.hide = nil, nil
	lease, err := s.AcquirePointer(t.Context(), "p", "me")
	if err != nil {
		t.Fatal(err)
	}
	p.lose = once("/pointers/")
	if err := lease.Set(t.Context(), 1); err != nil {
		t.Errorf("set: %v", err)
	}
	p.lose = once("/pointers/")
	if again, err := s.AcquirePointer(t.Context(), "p", "me again"); err != nil || again.Epoch() != 2 {
		t.Errorf("acquire: %v", err)
	}
}

func TestABodyThatBreaksOffGoesOn(t *testing.T) {
	p := &proxy{}
	s := through(t, p)
	data := bytes.Repeat([]byte("0123456789"), 300_000)
	b, err := s.PutBytes(t.Context(), data)
	if err != nil {
		t.Fatal(err)
	}
	p.cut = func(r *http.Request) int {
		if r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/blobs/") {
			return 700_000
		}
		return 0
	}
	got, err := s.ReadBlob(t.Context(), b)
	if err != nil || !bytes.Equal(got, data) {
		t.Errorf("read %d of %d bytes, %v", len(got), len(data), err)
	}
	if n := p.count("GET"); n != 5 {
		t.Errorf("%d requests for 3 MB in pieces of 0.7 MB, want 5", n)
	}
}

func TestAnUploadThatWasCutOffSendsOnlyWhatIsMissing(t *testing.T) {
	p := &proxy{}
	s := through(t, p)
	const size = 4*artifact.PartSize + 100
	data := make([]byte, size)
	for i := range data {
		data[i] = byte(i >> 12)
	}
	// The reader waits for the parts before it to be sent, so that what was sent is known.
	ctx, cancel := context.WithCancel(t.Context())
	wait := func(parts int, then func()) io.Reader {
		return readerFunc(func([]byte) (int, error) {
			for limit := time.Now().Add(30 * time.Second); p.count("PUT part") < parts && time.Now().Before(limit); {
				time.Sleep(5 * time.Millisecond)
			}
			then()
			return 0, io.EOF
		})
	}
	half := io.MultiReader(bytes.NewReader(data[:2*artifact.PartSize]), wait(2, cancel), bytes.NewReader(data[2*artifact.PartSize:]))
	_, err := s.Backend().Put(ctx, "k", half, size, artifact.Condition{IfNoneMatch: true})
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("cut off: %v", err)
	}
	sent := p.count("PUT part")
	if _, err := s.Backend().Put(t.Context(), "k", bytes.NewReader(data), size, artifact.Condition{IfNoneMatch: true}); err != nil {
		t.Fatal(err)
	}
	if again := p.count("PUT part") - sent; sent != 2 || again != 3 {
		t.Errorf("sent %d parts, then %d; want 2, then the other 3 of 5", sent, again)
	}
	r, _, err := s.Backend().Get(t.Context(), "k")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, data) {
		t.Errorf("read back %d bytes, %v", len(got), err)
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func TestGCOnS3(t *testing.T) {
	e := gateway(t)
	s := open(t, e.StoreURI(testenv.Unique(t)))
	b, err := s.PutBytes(t.Context(), []byte("orphan"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	r := io.MultiReader(bytes.NewReader(make([]byte, artifact.PartSize+5)), readerFunc(func([]byte) (int, error) { cancel(); return 0, io.EOF }), strings.NewReader("x"))
	if _, err := s.Backend().Put(ctx, "blobs/half", r, -1, artifact.Condition{}); err == nil {
		t.Fatal("the upload was not cut off")
	}
	report, err := s.GC(t.Context(), artifact.GCOptions{Delete: true, Now: time.Now().Add(8 * 24 * time.Hour)})
	if err != nil || len(report.Garbage) != 1 || len(report.Leftovers) != 1 {
		t.Errorf("gc: %+v, %v", report, err)
	}
	if _, err := s.ReadBlob(t.Context(), b); !errors.Is(err, artifact.ErrNotFound) {
		t.Errorf("the orphan: %v", err)
	}
	if report, err := s.GC(t.Context(), artifact.GCOptions{Now: time.Now().Add(8 * 24 * time.Hour)}); err != nil || len(report.Leftovers) != 0 {
		t.Errorf("a second gc: %+v, %v", report, err)
	}
}

// service makes the AWS environment point at a server of our own.
func service(t *testing.T, answer http.HandlerFunc) {
	t.Helper()
	server := httptest.NewServer(answer)
	t.Cleanup(server.Close)
	t.Setenv("AWS_ENDPOINT_URL_S3", server.URL)
	t.Setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "hunter2secret")
	t.Setenv("AWS_REGION", "us-east-1")
}

func answerError(w http.ResponseWriter, status int, code, message string) {
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(status)
	fmt.Fprintf(w, "<Error><Code>%s</Code><Message>%s</Message></Error>", code, message)
}

func TestRefusalsSayWhatToDo(t *testing.T) {
	for name, tt := range map[string]struct {
		status        int
		code, message string
		want          error
		say           string
	}{
		"a full disk":         {507, "InsufficientStorage", "full", artifact.ErrFull, "starter gc"},
		"a wrong key":         {403, "SignatureDoesNotMatch", "", artifact.ErrDenied, "AWS_ACCESS_KEY_ID"},
		"another region":      {301, "PermanentRedirect", "use eu-west-1", artifact.ErrDenied, "AWS_REGION"},
		"no bucket":           {404, "NoSuchBucket", "gone", nil, "bucket bucket does not exist"},
		"a condition ignored": {501, "NotImplemented", "A header you provided implies functionality that is not implemented", artifact.ErrUnavailable, "NotImplemented"},
	} {
		t.Run(name, func(t *testing.T) {
			service(t, func(w http.ResponseWriter, r *http.Request) { answerError(w, tt.status, tt.code, tt.message) })
			_, err := open(t, "s3://bucket/p").PutBytes(t.Context(), []byte("x"))
			if err == nil || tt.want != nil && !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.say) {
				t.Errorf("got %v; want %v, saying %q", err, tt.want, tt.say)
			}
			if errors.Is(err, artifact.ErrNotFound) {
				t.Errorf("a missing bucket is not a missing object: %v", err)
			}
			if err != nil && strings.Contains(err.Error(), "hunter2") {
				t.Errorf("the error holds the secret: %v", err)
			}
		})
	}
}

func TestAConflictIsTriedAgain(t *testing.T) {
	n := 0
	service(t, func(w http.ResponseWriter, r *http.Request) {
		if n++; n < 3 {
			answerError(w, 409, "ConditionalRequestConflict", "another write is under way")
			return
		}
		w.Header().Set("ETag", `"tag"`)
	})
	if _, err := open(t, "s3://bucket").PutBytes(t.Context(), []byte("x")); err != nil || n != 3 {
		t.Errorf("after %d requests: %v", n, err)
	}
}

func TestAStoreThatIsDownIsSaid(t *testing.T) {
	service(t, nil)
	t.Setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1")
	_, err := open(t, "s3://bucket/p").FindManifest(t.Context(), "tokens", strings.Repeat("0", 64))
	if !errors.Is(err, artifact.ErrUnavailable) || !strings.Contains(err.Error(), "AWS_ENDPOINT_URL_S3") || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("got %v", err)
	}
}

func TestOpenRefuses(t *testing.T) {
	for name, tt := range map[string]struct {
		uri  string
		env  map[string]string
		want string
	}{
		"no bucket":      {"s3:///prefix", nil, "s3://bucket/prefix"},
		"an upward path": {"s3://bucket/../other", nil, "not a valid name"},
		"no region":      {"s3://bucket/p", map[string]string{"AWS_ENDPOINT_URL_S3": "", "AWS_REGION": ""}, "AWS_REGION"},
		"no credentials": {"s3://bucket/p", map[string]string{"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}, "AWS_PROFILE"},
	} {
		t.Run(name, func(t *testing.T) {
			service(t, nil)
			none := filepath.Join(t.TempDir(), "none")
			for _, v := range []string{"AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"} {
				t.Setenv(v, none)
			}
			t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
			t.Setenv("AWS_DEFAULT_REGION", "")
			for k, v := range tt.env {
				t.Setenv(k, v)
			}
			if _, err := artifact.Open(t.Context(), tt.uri); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want an error that says %q", err, tt.want)
			}
		})
	}
}
