package safetensors

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func file(header string, data int) []byte {
	b := binary.LittleEndian.AppendUint64(nil, uint64(len(header)))
	return append(append(b, header...), make([]byte, data)...)
}

var malformed = map[string]struct {
	data []byte
	want string // part of the error
}{
	"an empty file":                    {nil, "truncated"},
	"a length without a header":        {file(`{}`, 0)[:8], "truncated"},
	"a header longer than the file":    {binary.LittleEndian.AppendUint64(nil, 50), "truncated"},
	"a header of 2^63 bytes":           {binary.LittleEndian.AppendUint64(nil, 1<<63), "limit"},
	"no JSON":                          {file(`nonsense`, 0), "not a JSON object"},
	"an array":                         {file(`[]`, 0), "not a JSON object"},
	"text after the JSON":              {file(`{}x`, 0), "follow the header"},
	"data beyond the last tensor":      {file(`{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}`, 5), "follow the last"},
	"truncated data":                   {file(`{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}`, 7), "truncated"},
	"a shape of another size":          {file(`{"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}}`, 8), "needs 12 bytes"},
	"a negative offset":                {file(`{"a":{"dtype":"F32","shape":[1],"data_offsets":[-4,0]}}`, 8), "outside"},
	"reversed offsets":                 {file(`{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}}`, 8), "outside"},
	"a negative dimension":             {file(`{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}`, 4), "impossible"},
	"a product that overflows":         {file(`{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}}`, 0), "overflows"},
	"a product that wraps to the size": {file(`{"a":{"dtype":"U8","shape":[8589934592,8589934592,4],"data_offsets":[0,0]}}`, 0), "overflows"},
	"too many dimensions":              {file(`{"a":{"dtype":"U8","shape":[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1],"data_offsets":[0,1]}}`, 1), "dimensions"},
	"overlapping tensors":              {file(`{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}`, 8), "inside the tensor before"},
	"a hole":                           {file(`{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[8,12]}}`, 12), "hole"},
	"a misaligned tensor":              {file(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"b":{"dtype":"F32","shape":[1],"data_offsets":[1,5]}}`, 5), "multiple"},
	"a name twice":                     {file(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}`, 2), "twice"},
	"a key twice":                      {file(`{"a":{"dtype":"U8","dtype":"I8","shape":[1],"data_offsets":[0,1]}}`, 1), "exactly"},
	"an unknown type":                  {file(`{"a":{"dtype":"F33","shape":[1],"data_offsets":[0,4]}}`, 4), "not known"},
	"an unknown key":                   {file(`{"a":{"dtype":"F32","shape":[1],"offset":[0,4]}}`, 4), "exactly"},
	"metadata that is not strings":     {file(`{"__metadata__":{"a":1}}`, 0), "__metadata__"},
	"three offsets":                    {file(`{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4,8]}}`, 8), "3 numbers"},
}

func TestMalformedFilesAreRefused(t *testing.T) {
	for name, tt := range malformed {
		t.Run(name, func(t *testing.T) {
			_, err := Parse(tt.data)
			var fe *FormatError
			if !errors.As(err, &fe) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want a FormatError with %q", err, tt.want)
			}
		})
	}
}

func TestWritingReadsBack(t *testing.T) {
	entries := []Entry{
		{Name: "w", DType: F32, Shape: []int{2, 2}, Read: func() ([]byte, error) { return Encode(F32, []float32{1, -2, 3.5, 0}) }},
		{Name: "empty", DType: F32, Shape: []int{0, 3}, Read: func() ([]byte, error) { return nil, nil }},
		{Name: "h\"ü", DType: BF16, Shape: nil, Read: func() ([]byte, error) { return Encode(BF16, []float32{0.5}) }},
	}
	path := filepath.Join(t.TempDir(), "x.safetensors")
	var b bytes.Buffer
	if err := Write(&b, map[string]string{"format": "pt"}, entries); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	w, _ := f.Tensor("w")
	got, err := w.Float32()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]float32{1, -2, 3.5, 0}, got); diff != "" {
		t.Error(diff)
	}
	if len(f.Header())%8 != 0 || f.Metadata()["format"] != "pt" || len(f.Tensors()) != 3 {
		t.Errorf("header of %d bytes, metadata %v, %d tensors", len(f.Header()), f.Metadata(), len(f.Tensors()))
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
}

func TestAFailedWriteLeavesNoFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x")
	if err := WriteFile(path, func(io.Writer) error { return errors.New("disk full") }); err == nil {
		t.Error("no error")
	}
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("the file is there: %v", err)
	}
}

func TestEveryHalfAndBFloatSurvivesFloat32(t *testing.T) {
	for h := range 1 << 16 {
		raw := binary.LittleEndian.AppendUint16(nil, uint16(h))
		for _, dtype := range []DType{F16, BF16} {
			x, err := Tensor{DType: dtype, Data: raw}.Float32()
			if err != nil {
				t.Fatal(err)
			}
			back, err := Encode(dtype, x)
			if err != nil {
				t.Fatal(err)
			}
			if nan := x[0] != x[0]; !nan && !bytes.Equal(raw, back) {
				t.Fatalf("%s %#04x → %v → %x", dtype, h, x[0], back)
			}
		}
	}
}

func TestNarrowingRoundsToNearestEven(t *testing.T) {
	for name, tt := range map[string]struct {
		dtype DType
		in    float32
		want  uint16
	}{
		"a tie goes down to even":         {F16, 1 + 1.0/2048, 0x3c00},
		"a tie goes up to even":           {F16, 1 + 3.0/2048, 0x3c02},
		"above the largest half":          {F16, 65520, 0x7c00},
		"just below that":                 {F16, 65519, 0x7bff},
		"the smallest subnormal":          {F16, 1.0 / (1 << 24), 1},
		"half of it is a tie to zero":     {F16, 1.0 / (1 << 25), 0},
		"negative zero":                   {F16, float32(math.Copysign(0, -1)), 0x8000},
		"a bfloat16 tie goes to even":     {BF16, 1 + 1.0/256, 0x3f80},
		"the next bfloat16 tie goes up":   {BF16, 1 + 3.0/256, 0x3f82},
		"infinity stays":                  {BF16, float32(math.Inf(1)), 0x7f80},
		"the largest float32 is infinity": {BF16, math.MaxFloat32, 0x7f80},
	} {
		t.Run(name, func(t *testing.T) {
			b, err := Encode(tt.dtype, []float32{tt.in})
			if err != nil {
				t.Fatal(err)
			}
			if got := binary.LittleEndian.Uint16(b); got != tt.want {
				t.Errorf("%#04x, want %#04x", got, tt.want)
			}
		})
	}
}

// FuzzParse: no input makes the parser panic or return a tensor outside the file, and what it accepts is written back to the
// same tensors.
func FuzzParse(f *testing.F) {
	for _, m := range malformed {
		f.Add(m.data)
	}
	f.Add(file(`{"__metadata__":{"format":"pt"},"b":{"dtype":"BF16","shape":[2,1],"data_offsets":[0,4]},"a":{"dtype":"F16","shape":[],"data_offsets":[4,6]}}  `, 6))
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := Parse(data)
		if err != nil {
			return
		}
		var entries []Entry
		total := 0
		for _, x := range p.Tensors() {
			if len(x.Data) != x.Len()*x.DType.Size() {
				t.Fatalf("%q: %d bytes for %v", x.Name, len(x.Data), x.Shape)
			}
			total += len(x.Data)
			if x.DType.Float() {
				if _, err := x.Float64(); err != nil {
					t.Fatal(err)
				}
			}
			entries = append(entries, Entry{x.Name, x.DType, x.Shape, func() ([]byte, error) { return x.Data, nil }})
		}
		if total+8+len(p.Header()) != len(data) {
			t.Fatalf("%d of %d bytes accounted for", total+8+len(p.Header()), len(data))
		}
		var b bytes.Buffer
		if err := Write(&b, p.Metadata(), entries); err != nil {
			t.Fatal(err)
		}
		q, err := Parse(b.Bytes())
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(p.Tensors(), q.Tensors()); diff != "" {
			t.Fatal(diff)
		}
	})
}
