// The emulator's loop: requests on standard input, each a header and the kernel's arguments, an answer on standard output. Device
// memory is the file named by the first argument, mapped; the first answer is its address.
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

struct Entry {
	size_t size;
	void (*run)(const void *);
};

struct Request {
	uint32_t kernel, grid[3], threads, shared, size, pad;
	uint64_t seed;
};

static bool all(ssize_t (*f)(int, void *, size_t), int fd, void *p, size_t n) {
	for (char *at = (char *)p; n;) {
		ssize_t m = f(fd, at, n);
		if (m <= 0) return false;
		at += m, n -= (size_t)m;
	}
	return true;
}
static ssize_t write_some(int fd, void *p, size_t n) { return write(fd, p, n); }

static int serve(const char *memory, size_t bytes, const Entry *kernels, size_t n) {
	int fd = open(memory, O_RDWR);
	void *base = fd < 0 ? MAP_FAILED : mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (base == MAP_FAILED) return perror(memory), 2;
	emulator::block_memory = (unsigned char *)aligned_alloc(1024, emulator::shared_limit);
	uint64_t address = (uint64_t)base;
	if (!all(write_some, 1, &address, sizeof address)) return 2;
	Request r;
	alignas(128) static unsigned char arguments[4096]; // as much as a launch may have
	while (all(read, 0, &r, sizeof r)) {
		if (r.size > sizeof arguments || !all(read, 0, arguments, r.size)) return 2;
		uint32_t failed = 1;
		if (r.kernel >= n || kernels[r.kernel].size != r.size)
			fprintf(stderr, "kernel %u takes %zu bytes of arguments, %u came\n", r.kernel, r.kernel < n ? kernels[r.kernel].size : 0, r.size);
		else
			failed = !emulator::launch({r.grid[0], r.grid[1], r.grid[2]}, (int)r.threads, r.shared, r.seed, [&] { kernels[r.kernel].run(arguments); });
		if (failed) return 1;
		if (!all(write_some, 1, &failed, sizeof failed)) return 2;
	}
	return 0;
}
