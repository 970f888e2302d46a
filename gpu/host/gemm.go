package host

// Blocks of a product: a strip of kBlock × nr of the right operand stays in the first-level cache
// while mBlock rows of the left one pass over it.
const (
	kBlock = 256
	mBlock = 144
)

// packedLen returns the elements of a packed k×n right operand: n is padded to whole strips.
func (e *engine[F]) packedLen(k, n int) int { return k * ceil(n, e.nr) * e.nr }

// packJob packs a right operand b (k×n): blocks of kBlock rows, each cut into strips of nr columns,
// each strip row by row. b(p,j) = src[p·ld+j], or src[j·ld+p] when transposed.
type packJob[F Float] struct {
	e          *engine[F]
	dst, src   []F
	ld, k, n   int
	transposed bool
	nr         int
	strips     int // of one part
}

func (e *engine[F]) pack(dst, src []F, ld, k, n int, transposed bool) {
	j := &e.jobs.pack
	*j = packJob[F]{e: e, dst: dst, src: src, ld: ld, k: k, n: n, transposed: transposed, nr: e.nr}
	j.strips = max(1, 16384/(min(k, kBlock)*e.nr))
	e.dev.pool.run(j, ceil(k, kBlock)*ceil(ceil(n, e.nr), j.strips))
}

func (j *packJob[F]) part(_, i int) {
	total := ceil(j.n, j.nr)
	groups := ceil(total, j.strips)
	k0 := i / groups * kBlock
	kc := min(kBlock, j.k-k0)
	first := i % groups * j.strips
	for s := first; s < min(first+j.strips, total); s++ {
		dst := j.dst[k0*total*j.nr+s*j.nr*kc:][:j.nr*kc]
		n := min(j.nr, j.n-s*j.nr)
		if j.transposed {
			j.e.packT(dst, j.src[s*j.nr*j.ld+k0:], j.ld, kc, n, j.nr)
		} else {
			j.e.packCols(dst, j.src[k0*j.ld+s*j.nr:], j.ld, kc, n, j.nr)
		}
	}
}

// packStrip copies k rows of n ≤ nr columns into rows of nr, padding with zeros.
func packStrip[F Float](dst, src []F, ld, k, n, nr int) {
	for p := range k {
		row := dst[p*nr : p*nr+nr]
		clear(row[copy(row, src[p*ld:p*ld+n]):])
	}
}

// packTransposed turns n ≤ nr rows of k elements into k rows of nr, padding with zeros.
func packTransposed[F Float](dst, src []F, ld, k, n, nr int) {
	for t := range nr {
		if t >= n {
			for o := t; o < k*nr; o += nr {
				dst[o] = 0
			}
			continue
		}
		o := t
		for _, v := range src[t*ld : t*ld+k] {
			dst[o] = v
			o += nr
		}
	}
}

// gemmJob is C (m×n) = A (m×k) B (k×n) + bias, or += with acc. A(i,p) = a[i·lda+p], or a[p·lda+i] with cols;
// b is packed. Every element is summed in order of p within a block, and block after block.
type gemmJob[F Float] struct {
	e       *engine[F]
	c       []F
	ldc     int
	a       []F
	lda     int
	cols    bool
	b       []F
	m, n, k int
	acc     bool
	bias    []F

	mc, mParts  int // rows of a part
	strips, per int // strips in all, and of a part
}

// vecRows is the largest number of rows that are multiplied one by one: packed weights then stream once a row.
const vecRows = 2

// gemm runs a product; its operands were checked.
func (e *engine[F]) gemm(j gemmJob[F]) {
	if j.m == 0 || j.n == 0 || j.k == 0 {
		return
	}
	e.scratch(mBlock*kBlock + e.mr*kBlock + e.mr*e.nr + 64)
	j.e = e
	threads := e.dev.pool.threads
	j.strips = ceil(j.n, e.nr)
	j.mc = mBlock / e.mr * e.mr
	want := 4 * threads
	if threads > 1 && ceil(j.m, j.mc) < want {
		// Fewer rows a part rather than fewer columns: columns of a are copied once a part.
		j.mc = min(j.mc, max(8*e.mr, ceil(ceil(j.m, want), e.mr)*e.mr))
	}
	j.mParts = ceil(j.m, j.mc)
	nParts := 1
	if threads > 1 && j.mParts < want {
		nParts = min(ceil(want, j.mParts), j.strips)
		// A part is worth waking a worker for from about 10 µs on.
		nParts = min(nParts, max(1, int(float64(j.m)*float64(j.n)*float64(j.k)/float64(j.mParts)/2e5)))
	}
	j.per = ceil(j.strips, nParts)
	e.jobs.gemm = j
	e.dev.pool.run(&e.jobs.gemm, j.mParts*ceil(j.strips, j.per))
}

func (j *gemmJob[F]) part(w, i int) {
	e := j.e
	groups := ceil(j.strips, j.per)
	i0 := i / groups * j.mc
	m := min(j.mc, j.m-i0)
	s0 := i % groups * j.per
	s1 := min(s0+j.per, j.strips)
	if j.bias != nil {
		for r := i0; r < i0+m; r++ {
			copy(j.c[r*j.ldc+s0*e.nr:r*j.ldc+min(s1*e.nr, j.n)], j.bias[s0*e.nr:])
		}
	}
	for k0 := 0; k0 < j.k; k0 += kBlock {
		kc := min(kBlock, j.k-k0)
		b := j.b[k0*j.strips*e.nr:]
		acc := j.acc || k0 > 0 || j.bias != nil
		if m <= vecRows && !j.cols {
			j.vectors(e.local[w], b, i0, m, k0, kc, s0, s1, acc)
		} else {
			j.tiles(e.local[w], b, i0, m, k0, kc, s0, s1, acc)
		}
	}
}

// vectors multiplies single rows.
func (j *gemmJob[F]) vectors(tmp, b []F, i0, m, k0, kc, s0, s1 int, acc bool) {
	e := j.e
	whole := min(s1, j.n/e.nr)
	for r := i0; r < i0+m; r++ {
		a := &j.a[r*j.lda+k0]
		if whole > s0 {
			e.tileVec(kc, a, &b[s0*e.nr*kc], e.nr*kc, whole-s0, &j.c[r*j.ldc+s0*e.nr], acc)
		}
		if whole < s1 {
			e.tileVec(kc, a, &b[whole*e.nr*kc], e.nr*kc, 1, &tmp[0], false)
			store(j.c[r*j.ldc+whole*e.nr:r*j.ldc+j.n], tmp, acc)
		}
	}
}

func store[F Float](c, sum []F, acc bool) {
	if !acc {
		copy(c, sum)
		return
	}
	for i := range c {
		c[i] += sum[i]
	}
}

// tiles multiplies rows i0…i0+m by strips s0…s1 over k0…k0+kc.
func (j *gemmJob[F]) tiles(local, b []F, i0, m, k0, kc, s0, s1 int, acc bool) {
	e := j.e
	tmp, tail, packed := local[:e.mr*e.nr], local[e.mr*e.nr:][:e.mr*kBlock], local[e.mr*e.nr+e.mr*kBlock:]
	full := m / e.mr * e.mr
	// Columns of a are read in place, unless they share few cache sets or are read so often that copying pays.
	direct := j.lda%1024 != 0 && s1-s0 <= directStrips
	a, lda, step := j.a, j.lda, e.mr*j.lda
	switch {
	case j.cols && direct:
		a, step = a[k0*lda+i0:], e.mr
	case j.cols:
		for i := 0; i < full; i += e.mr {
			e.packCols(packed[i*kc:], a[k0*lda+i0+i:], lda, kc, e.mr, e.mr)
		}
		a, lda, step = packed, e.mr, e.mr*kc
	default:
		a = a[i0*lda+k0:]
	}
	if full < m {
		j.loadTail(tail, i0+full, m-full, k0, kc)
	}
	for s := s0; s < s1; s++ {
		bs := &b[s*e.nr*kc]
		n := min(e.nr, j.n-s*e.nr)
		done := 0
		if n == e.nr && full > 0 {
			e.tile(j.cols, kc, full/e.mr, &a[0], lda, step, bs, &j.c[i0*j.ldc+s*e.nr], j.ldc, acc)
			done = full
		}
		for i := done; i < m; i += e.mr {
			switch {
			case i < full:
				e.tile(j.cols, kc, 1, &a[i/e.mr*step], lda, 0, bs, &tmp[0], e.nr, false)
			case j.cols:
				e.tileCols(kc, 1, &tail[0], e.mr, 0, bs, &tmp[0], e.nr, false)
			default:
				e.tileRows(kc, 1, &tail[0], kc, 0, bs, &tmp[0], e.nr, false)
			}
			for r := range min(e.mr, m-i) {
				o := (i0+i+r)*j.ldc + s*e.nr
				store(j.c[o:o+n], tmp[r*e.nr:], acc)
			}
		}
	}
}

// directStrips is the largest number of strips for which copying columns of a does not pay.
const directStrips = 8

// tile runs tileCols or tileRows.
func (e *engine[F]) tile(cols bool, k, groups int, a *F, lda, step int, b, c *F, ldc int, acc bool) {
	if cols {
		e.tileCols(k, groups, a, lda, step, b, c, ldc, acc)
	} else {
		e.tileRows(k, groups, a, lda, step, b, c, ldc, acc)
	}
}

// loadTail copies the n < mr rows of a from row i on, padded with zero rows: in rows of kc, or in columns of mr.
func (j *gemmJob[F]) loadTail(tail []F, i, n, k0, kc int) {
	e := j.e
	if j.cols {
		e.packCols(tail, j.a[k0*j.lda+i:], j.lda, kc, n, e.mr)
		return
	}
	for r := range n {
		copy(tail[r*kc:(r+1)*kc], j.a[(i+r)*j.lda+k0:])
	}
	clear(tail[n*kc : e.mr*kc])
}
