package datasets

import (
	"cmp"
	"math/bits"
	"slices"
)

// Constants of the default packing. More open packs fill better and move sequences further;
// these reach 99.97 % on LongAlign-like lengths.
const (
	openPacks   = 32 // packs open at once
	maxPackAge  = 64 // packs opened until an open pack must close
	windowSteps = 16 // steps over which finished packs are dealt
	roundPacks  = 8  // packs of like cost that BalanceCompute puts side by side
)

// groups are packs of sequence IDs in one array: pack k is ids[ends[k-1]:ends[k]].
type groups struct{ ids, ends []int32 }

func (g *groups) add(ids []int32) {
	g.ids = append(g.ids, ids...)
	g.ends = append(g.ends, int32(len(g.ids)))
}

func (g *groups) len() int { return len(g.ends) }

func (g *groups) at(k int) []int32 {
	start := int32(0)
	if k > 0 {
		start = g.ends[k-1]
	}
	return g.ids[start:g.ends[k]]
}

// pack fills in the steps of a packing plan.
func (plan *Plan) pack(order, lengths []int32, p BatchesParams, rng *Rand) {
	if p.SequencesPerStep > 0 {
		plan.packSteps(order, lengths, p)
		return
	}
	var packs groups
	switch p.Packing {
	case PackingNextFit:
		packs = nextFit(order, lengths, p.MaxLength)
	case PackingBestFitDecreasing:
		packs = newRoomIndex(p.MaxLength).bestFitDecreasing(order, lengths)
	default:
		packs = bestFit(order, lengths, p.MaxLength, nil)
	}
	ranks := Ascending(packs.len())
	sequences := func(k int32) float64 { return float64(len(packs.at(int(k)))) }
	switch {
	case p.Packing == PackingBestFitDecreasing:
		Shuffle(rng, ranks)
	case p.Packing == PackingDefault && p.Balance == BalanceCompute:
		rounds(ranks, p.BatchSize, rng, func(k int32) (cost float64) {
			for _, id := range packs.at(int(k)) {
				cost += p.cost(lengths[id])
			}
			return cost
		}, sequences)
	case p.Packing == PackingDefault:
		deal(ranks, p.BatchSize, rng, sequences)
	}
	plan.grow(len(order), len(ranks), (len(ranks)+p.BatchSize-1)/p.BatchSize)
	for step := range slices.Chunk(ranks, p.BatchSize) {
		for _, k := range step {
			plan.addMicroBatch(packs.at(int(k)))
		}
		plan.endStep()
	}
}

// packSteps packs each run of SequencesPerStep sequences by itself.
func (plan *Plan) packSteps(order, lengths []int32, p BatchesParams) {
	index := newRoomIndex(p.MaxLength)
	plan.grow(len(order), len(order)/2, len(order)/p.SequencesPerStep+1)
	for step := range slices.Chunk(order, p.SequencesPerStep) {
		var packs groups
		switch p.Packing {
		case PackingNextFit:
			packs = nextFit(step, lengths, p.MaxLength)
		case PackingBestFit:
			packs = bestFit(step, lengths, p.MaxLength, nil)
		default:
			packs = index.bestFitDecreasing(step, lengths)
		}
		if p.Balance == BalanceCompute {
			if even, ok := cheapestFit(step, lengths, p, packs.len()); ok {
				packs = even
			}
		}
		for k := range packs.len() {
			plan.addMicroBatch(packs.at(k))
		}
		plan.endStep()
	}
}

// nextFit fills one pack after the other.
func nextFit(order, lengths []int32, capacity int) groups {
	g := groups{ids: make([]int32, 0, len(order))}
	room, start := int32(capacity), 0
	for i, id := range order {
		if lengths[id] > room {
			g.add(order[start:i])
			room, start = int32(capacity), i
		}
		room -= lengths[id]
	}
	g.add(order[start:])
	return g
}

// openPack is a pack that still takes sequences. opened counts packs, itself included.
type openPack struct {
	ids    []int32
	room   int32
	opened int
}

// bestFit puts each sequence into the open pack it fills best. When it fits none, a new pack
// opens; the fullest one closes if there are openPacks, and any that became maxPackAge packs old.
// Packs stand in the order they closed; placed, which may be nil, is told of each sequence and the number of packs opened
// by then.
func bestFit(order, lengths []int32, capacity int, placed func(id int32, opened int)) (packs groups) {
	packs.ids = make([]int32, 0, len(order))
	open := make([]openPack, 0, openPacks)
	opened := 0
	closePack := func(i int) []int32 {
		packs.add(open[i].ids)
		ids := open[i].ids[:0]
		open[i] = open[len(open)-1]
		open = open[:len(open)-1]
		return ids
	}
	for _, id := range order {
		n := lengths[id]
		best := -1
		for i := range open {
			if open[i].room >= n && (best < 0 || open[i].room < open[best].room) {
				best = i
			}
		}
		if best < 0 {
			var ids []int32
			opened++
			if oldest := extreme(open, func(a, b *openPack) bool { return a.opened < b.opened }); oldest >= 0 && opened-open[oldest].opened >= maxPackAge {
				ids = closePack(oldest)
			} else if len(open) == openPacks {
				ids = closePack(extreme(open, func(a, b *openPack) bool {
					return a.room < b.room || a.room == b.room && a.opened < b.opened
				}))
			}
			open = append(open, openPack{ids: ids, room: int32(capacity), opened: opened})
			best = len(open) - 1
		}
		open[best].ids = append(open[best].ids, id)
		open[best].room -= n
		if placed != nil {
			placed(id, opened)
		}
		if open[best].room == 0 {
			closePack(best)
		}
	}
	closeRest(&packs, open, lengths, capacity)
	return packs
}

// closeRest closes the packs open at the end of an epoch, packed anew longest first where that
// saves packs: only there does the stream leave room behind.
func closeRest(packs *groups, open []openPack, lengths []int32, capacity int) {
	slices.SortFunc(open, func(a, b openPack) int { return a.opened - b.opened })
	var rest []int32
	for i := range open {
		rest = append(rest, open[i].ids...)
	}
	if len(rest) == 0 {
		return
	}
	if tight := newRoomIndex(capacity).bestFitDecreasing(rest, lengths); tight.len() < len(open) {
		for k := range tight.len() {
			packs.add(tight.at(k))
		}
		return
	}
	for i := range open {
		packs.add(open[i].ids)
	}
}

// extreme returns the index of the first element before all others, -1 for none.
func extreme(open []openPack, before func(a, b *openPack) bool) int {
	best := -1
	for i := range open {
		if best < 0 || before(&open[i], &open[best]) {
			best = i
		}
	}
	return best
}

// cheapestFit lays sequences, longest first, into the cheapest of k packs that has room. It reports
// false when they do not fit that way.
func cheapestFit(ids, lengths []int32, p BatchesParams, k int) (groups, bool) {
	longestFirst := slices.Clone(ids)
	sortByLength(longestFirst, lengths)
	slices.Reverse(longestFirst)
	packs := make([][]int32, k)
	room, cost := make([]int32, k), make([]float64, k)
	for i := range room {
		room[i] = int32(p.MaxLength)
	}
	for _, id := range longestFirst {
		best := -1
		for i := range packs {
			if room[i] >= lengths[id] && (best < 0 || cost[i] < cost[best]) {
				best = i
			}
		}
		if best < 0 {
			return groups{}, false
		}
		packs[best] = append(packs[best], id)
		room[best] -= lengths[id]
		cost[best] += p.cost(lengths[id])
	}
	var g groups
	for _, ids := range packs {
		g.add(ids)
	}
	return g, true
}

// deal reorders packs so that the steps of each window of windowSteps steps weigh about the same: heaviest
// pack first, each to the lightest step with a free place. A last partial step stays last and is weighed
// by its places. Steps of a window are then shuffled, for dealing treats the first ones differently.
func deal(packs []int32, perStep int, rng *Rand, weight func(pack int32) float64) {
	type weighed struct {
		pack   int32
		weight float64
	}
	for window := range slices.Chunk(packs, windowSteps*perStep) {
		sorted := make([]weighed, len(window))
		for i, k := range window {
			sorted[i] = weighed{k, weight(k)}
		}
		slices.SortStableFunc(sorted, func(a, b weighed) int {
			switch {
			case a.weight > b.weight:
				return -1
			case a.weight < b.weight:
				return 1
			}
			return 0
		})
		places := make([]int, 0, windowSteps)
		for n := len(window); n > 0; n -= perStep {
			places = append(places, min(n, perStep))
		}
		steps, loads := make([][]int32, len(places)), make([]float64, len(places))
		for _, w := range sorted {
			best := -1
			for s := range steps {
				if len(steps[s]) < places[s] && (best < 0 || loads[s]/float64(places[s]) < loads[best]/float64(places[best])) {
					best = s
				}
			}
			steps[best] = append(steps[best], w.pack)
			loads[best] += w.weight
		}
		whole := steps
		if places[len(places)-1] < perStep {
			whole = steps[:len(steps)-1]
		}
		Shuffle(rng, whole)
		copy(window, slices.Concat(steps...))
	}
}

// rounds reorders packs so that those that devices compute at the same time cost about the same: in each window of windowSteps steps they
// are sorted by cost and cut into rounds of up to roundPacks, which are dealt to steps by their numbers of sequences. What is left over for
// a partial step stays last.
func rounds(packs []int32, perStep int, rng *Rand, cost, sequences func(pack int32) float64) {
	size := min(perStep, roundPacks)
	for perStep%size != 0 {
		size--
	}
	for window := range slices.Chunk(packs[:len(packs)/perStep*perStep], windowSteps*perStep) {
		slices.SortStableFunc(window, func(a, b int32) int { return cmp.Compare(cost(a), cost(b)) })
		of := slices.Clone(window)
		order := Ascending(len(window) / size)
		deal(order, perStep/size, rng, func(r int32) float64 {
			n := 0.0
			for _, k := range of[int(r)*size : (int(r)+1)*size] {
				n += sequences(k)
			}
			return n
		})
		for i, r := range order {
			copy(window[i*size:], of[int(r)*size:(int(r)+1)*size])
		}
	}
}

// roomIndex finds the fullest pack that still has room for n tokens in constant time:
// packs are listed by room, and a tree of bit sets tells which lists are not empty.
type roomIndex struct {
	capacity int
	head     []int32    // by room: last pack with that room, -1 for none
	next     []int32    // by pack: another pack with the same room
	levels   [][]uint64 // bit r of levels[0] is set if head[r] ≥ 0; bit i of levels[l+1] if word i of levels[l] is not 0
}

func newRoomIndex(capacity int) *roomIndex {
	x := &roomIndex{capacity: capacity, head: make([]int32, capacity+1)}
	for r := range x.head {
		x.head[r] = -1
	}
	for n := capacity + 1; ; n = len(x.levels[len(x.levels)-1]) {
		x.levels = append(x.levels, make([]uint64, (n+63)/64))
		if n <= 64 {
			return x
		}
	}
}

// put lists a pack under its room.
func (x *roomIndex) put(pack, room int32) {
	x.next[pack] = x.head[room]
	x.head[room] = pack
	for l, i := 0, int(room); l < len(x.levels); l, i = l+1, i/64 {
		x.levels[l][i/64] |= 1 << (i % 64)
	}
}

// take removes and returns the fullest pack with at least the given room, and its room.
func (x *roomIndex) take(room int32) (pack, has int32, ok bool) {
	r, ok := x.ceil(int(room))
	if !ok {
		return 0, 0, false
	}
	pack = x.head[r]
	x.head[r] = x.next[pack]
	if x.head[r] < 0 {
		for l, i := 0, r; l < len(x.levels); l, i = l+1, i/64 {
			x.levels[l][i/64] &^= 1 << (i % 64)
			if x.levels[l][i/64] != 0 {
				break
			}
		}
	}
	return pack, int32(r), true
}

// ceil returns the smallest listed room ≥ r.
func (x *roomIndex) ceil(r int) (int, bool) {
	i := r
	for l := 0; l < len(x.levels); l++ {
		if w := i / 64; w < len(x.levels[l]) {
			if rest := x.levels[l][w] >> (i % 64); rest != 0 {
				i += bits.TrailingZeros64(rest)
				for l--; l >= 0; l-- {
					i = i*64 + bits.TrailingZeros64(x.levels[l][i])
				}
				return i, true
			}
		}
		i = i/64 + 1
	}
	return 0, false
}

// bestFitDecreasing packs ids longest first, each into the fullest pack it fits. Packs stand in the
// order they were opened. It leaves x empty.
func (x *roomIndex) bestFitDecreasing(ids, lengths []int32) groups {
	longestFirst := slices.Clone(ids)
	sortByLength(longestFirst, lengths)
	slices.Reverse(longestFirst)
	x.next = x.next[:0]
	in := make([]int32, len(longestFirst)) // pack of each
	var sizes []int32
	for i, id := range longestFirst {
		pack, room, ok := x.take(lengths[id])
		if !ok {
			pack, room = int32(len(sizes)), int32(x.capacity)
			sizes, x.next = append(sizes, 0), append(x.next, -1)
		}
		in[i] = pack
		sizes[pack]++
		x.put(pack, room-lengths[id])
	}
	for {
		if _, _, ok := x.take(0); !ok {
			break
		}
	}
	g := groups{ids: make([]int32, len(ids)), ends: sizes}
	at := int32(0)
	starts := make([]int32, len(sizes))
	for k, n := range sizes {
		starts[k] = at
		at += n
		g.ends[k] = at
	}
	for i, id := range longestFirst {
		g.ids[starts[in[i]]] = id
		starts[in[i]]++
	}
	return g
}
