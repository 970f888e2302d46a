/* A matrix library for tests of what calls one, on the fake driver's memory: column-major products in plain loops. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef struct { int attribute[64]; void *bias; } desc;
typedef struct { int type; uint64_t rows, cols; int64_t ld; } layout;
typedef struct { uint64_t algorithm[8]; size_t workspace; int state; float waves; int reserved[4]; } heuristic;

size_t cublasLtGetVersion(void) { return 120400; }
int cublasLtCreate(void **h) { *h = malloc(1); return 0; }
int cublasLtDestroy(void *h) { free(h); return 0; }
int cublasLtMatmulDescCreate(void **d, int compute, int scale) { *d = calloc(1, sizeof(desc)); return compute != 68 || scale != 0; }
int cublasLtMatmulDescDestroy(void *d) { free(d); return 0; }
int cublasLtMatmulDescSetAttribute(void *d, int which, const void *value, size_t n) {
	memcpy(which == 8 ? (void *)&((desc *)d)->bias : (void *)&((desc *)d)->attribute[which], value, n);
	return 0;
}
int cublasLtMatrixLayoutCreate(void **l, int type, uint64_t rows, uint64_t cols, int64_t ld) {
	layout *x = *l = malloc(sizeof *x);
	x->type = type, x->rows = rows, x->cols = cols, x->ld = ld;
	return ld < (int64_t)rows ? 7 : 0;
}
int cublasLtMatrixLayoutDestroy(void *l) { free(l); return 0; }
int cublasLtMatmulPreferenceCreate(void **p) { *p = malloc(1); return 0; }
int cublasLtMatmulPreferenceSetAttribute(void *p, int which, const void *value, size_t n) { (void)p, (void)which, (void)value, (void)n; return 0; }
int cublasLtMatmulPreferenceDestroy(void *p) { free(p); return 0; }
static int failing(const char *call) {
	const char *f = getenv("FAKE_BLAS"); /* "call=status" */
	size_t n = strlen(call);
	return f && !strncmp(f, call, n) && f[n] == '=' ? atoi(f + n + 1) : 0;
}
int cublasLtMatmulAlgoGetHeuristic(void *h, void *d, void *a, void *b, void *c, void *e, void *p, int most, heuristic *r, int *found) {
	(void)h, (void)d, (void)a, (void)b, (void)c, (void)e, (void)p, (void)most;
	static int calls;
	if (calls++ < 1 && failing("plan")) return failing("plan");
	if (failing("never")) return failing("never");
	memset(r, 0, sizeof *r);
	r->algorithm[0] = 42;
	*found = 1;
	r->state = failing("state");
	return 0;
}

static float get(const void *p, int type, int64_t i) {
	if (!type) return ((const float *)p)[i];
	uint32_t b = (uint32_t)((const uint16_t *)p)[i] << 16;
	float f;
	memcpy(&f, &b, 4);
	return f;
}
static void set(void *p, int type, int64_t i, float f) {
	uint32_t b;
	memcpy(&b, &f, 4);
	if (!type) ((float *)p)[i] = f;
	else ((uint16_t *)p)[i] = (uint16_t)((b + 0x7fff + (b >> 16 & 1)) >> 16);
}

int cublasLtMatmul(void *h, void *d, const void *alpha, const void *a, void *la, const void *b, void *lb, const void *beta, const void *c, void *lc, void *e, void *le, const void *algorithm, void *workspace, size_t n, void *stream) {
	(void)h, (void)le, (void)c, (void)workspace, (void)n, (void)stream;
	if (failing("run")) return failing("run");
	desc *x = d;
	layout *A = la, *B = lb, *C = lc;
	int ta = x->attribute[3], tb = x->attribute[4];
	uint64_t inner = ta ? A->rows : A->cols;
	if ((ta ? A->cols : A->rows) != C->rows || (tb ? B->rows : B->cols) != C->cols || (tb ? B->cols : B->rows) != inner || *(const uint64_t *)algorithm != 42) return 7;
	for (uint64_t j = 0; j < C->cols; j++)
		for (uint64_t i = 0; i < C->rows; i++) {
			int64_t at = (int64_t)i + (int64_t)j * C->ld;
			float s = 0;
			for (uint64_t k = 0; k < inner; k++)
				s += get(a, A->type, ta ? (int64_t)k + (int64_t)i * A->ld : (int64_t)i + (int64_t)k * A->ld) * get(b, B->type, tb ? (int64_t)j + (int64_t)k * B->ld : (int64_t)k + (int64_t)j * B->ld);
			s *= *(const float *)alpha;
			if (x->attribute[7] == 4) s += get(x->bias, C->type, (int64_t)i);
			if (*(const float *)beta != 0) s += *(const float *)beta * get(e, C->type, at);
			set(e, C->type, at, s);
		}
	return 0;
}
