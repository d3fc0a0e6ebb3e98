/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The block translation table (docs/SPEC-btt.md; docs/DESIGN.md, P2 and P9): writers fill a spare
 * block, make it durable, swap it into the table by one compare-and-swap, make the entry durable,
 * and keep what they swapped out as their next spare; readers hold no lock. Threads die in the
 * middle of a write and their lane is handed over; the process dies (stores live on) or the power
 * fails (lines that were not flushed are lost or have been evicted, unfenced data is torn), again
 * and again, also before recovery has served anybody; cache lines are evicted at any time.
 *
 * Promises: a read returns one write's data, whole, of its own sector, not older than anything that
 * had completed when it began; after a crash each sector holds something not older than anything
 * that had completed or had been returned by a read; each block is in one place; no block that
 * somebody protects is written.
 *
 * An entry is a block number, and for a zeroed sector the id of the operation that zeroed it. Data
 * is two halves, each the id of the write that put it there. The counters of the stripes `reuse`
 * are unbounded in the program; here a reader's copy of one is a flag that says whether it moved.
 * Labels are step names that the C code quotes.
 *
 * Bounds: 2 sectors, 2 lanes and a reserve block for 1 hazard slot, 1 reader that reads for ever;
 * OPS operations in all, each by either lane on either sector; CRASHES crashes, KILLS dead threads.
 * BREAK_READER_PERSIST and BREAK_LOSER are the two holes of the protocol that this one grew from.
 */
#ifndef OPS
#define OPS     3
#endif
#ifndef CRASHES
#define CRASHES 2
#endif
#ifndef KILLS
#define KILLS   1
#endif

#define LBAS   2
#define LANES  2
#define BLOCKS 5
#define NONE   7
#define TORN   15

#define BLOCK(e) ((e) & 7)
#define ZERO(e)  ((e) >> 3)

#define IDLE    0
#define BUMP    1
#define HAZARD  2
#define HALF0   3
#define HALF1   4
#define PENDING 6
#define LOAD    7
#define SWAP    8
#define PERSIST 9
#define HAND    11

#define UP      0
#define DOWN    1
#define SCANNED 2

#define R_IDLE  0
#define R_LOAD  1
#define R_SNAP  2
#define R_AGAIN 3
#define R_FLUSH 4
#define R_HALF1 6
#define H_LOAD  8
#define H_PUT   9
#define H_AGAIN 10
#define H_FLUSH 11
#define H_HALF1 13

/* The table as the processor shows it, and as the medium has it. */
byte map[LBAS], d_map[LBAS];
byte half0[BLOCKS], half1[BLOCKS];
bool unfenced[BLOCKS];
bool clean = true; /* on the medium: the saved list of spares (2, 3, 4) counts */

/* Memory of the process. */
byte up = UP;
byte pending[LBAS];
byte reserve = 4;
byte hazard = NONE;

/* Lanes. old and swapping are what the lane's record says to who takes it over. */
byte pc[LANES], spare[LANES], old[LANES], lba[LANES], id[LANES];
bool zeroing[LANES], swapping[LANES];

#ifdef BREAK_LOSER
byte loaded[LANES];
#endif

/* The reader. */
byte r_pc, r_lba, r_entry, r_half0, r_half1, r_start;
byte r_snap = NONE;
bool r_moved;

/* History: ghosts. */
byte ids;              /* operations begun */
byte owner[OPS + 1];      /* id -> its sector */
byte pos[OPS + 1];     /* id -> its place in its sector's history; 0: none */
byte last[LBAS];       /* the places given */
byte need[LBAS];       /* the oldest place that a crash may leave */
byte crashes, kills;

hidden byte i, j, v, n;

inline flush_entry(l)
{
	d_map[l] = map[l]
}

/* Sets v to the place in history of entry e of sector l, with halves a and b. */
inline place(l, e, a, b)
{
	if
	:: ZERO(e) -> v = ZERO(e)
	:: else -> assert(a == b); v = a
	fi;
	assert(v != TORN);
	if
	:: v == 0
	:: else -> assert(owner[v] == l && pos[v] > 0); v = pos[v]
	fi
}

inline raise_need(l, p)
{
	if
	:: p > need[l] -> need[l] = p
	:: else
	fi
}

inline writer_reset(w)
{
	pc[w] = IDLE; spare[w] = NONE; old[w] = 0; lba[w] = 0; id[w] = 0;
	zeroing[w] = false; swapping[w] = false
}

inline process_dies()
{
	up = DOWN;
	writer_reset(0);
	writer_reset(1);
	pending[0] = 0; pending[1] = 0;
	reserve = NONE; hazard = NONE;
	r_pc = R_IDLE; r_lba = 0; r_entry = 0; r_snap = NONE; r_half0 = 0; r_half1 = 0; r_start = 0;
	r_moved = false
}

inline power_fails()
{
	map[0] = d_map[0];
	map[1] = d_map[1];
	for (i : 0 .. BLOCKS - 1) {
		if
		:: unfenced[i] ->
			if
			:: half0[i] = TORN
			:: true
			fi;
			if
			:: half1[i] = TORN
			:: true
			fi
		:: else
		fi;
		unfenced[i] = false
	}
}

/*
 * A saved list counts as long as it has not been withdrawn. Else what is not in the table is spare:
 * three blocks, in the order in which the scan meets them.
 */
inline find_spares()
{
	assert(BLOCK(map[0]) != BLOCK(map[1]));
	n = 0;
	for (i : 0 .. BLOCKS - 1) {
		if
		:: clean && i < 2
		:: !clean && (i == BLOCK(map[0]) || i == BLOCK(map[1]))
		:: else ->
			assert(i != BLOCK(map[0]) && i != BLOCK(map[1]));
			if
			:: n == 0 -> spare[0] = i
			:: n == 1 -> spare[1] = i
			:: else -> reserve = i
			fi;
			n++
		fi
	}
}

/* What recovery finds is not older than what was promised; what is lost is lost for ever. */
inline judge()
{
	for (j : 0 .. LBAS - 1) {
		place(j, map[j], half0[BLOCK(map[j])], half1[BLOCK(map[j])]);
		assert(v >= need[j]);
		for (i : 1 .. OPS) {
			if
			:: owner[i] == j && pos[i] > v -> pos[i] = 0
			:: else
			fi
		}
		last[j] = v
	}
}

proctype writer(byte w)
{
	do
	/* Sectors and lanes are alike: the first operation may be the first lane's on the first. */
	:: atomic { up == UP && pc[w] == IDLE && spare[w] != NONE && ids < OPS &&
		    (ids > 0 || w == 0) ->
begin:		ids++;
		id[w] = ids;
		if
		:: lba[w] = 0
		:: ids > 1 -> lba[w] = 1
		fi;
		owner[ids] = lba[w];
#ifndef BREAK_WITHDRAW
withdraw:	clean = false;
#endif
		if
		:: zeroing[w] = true; pc[w] = PENDING
		:: pc[w] = BUMP
		fi }

	:: atomic { up == UP && pc[w] == BUMP ->
bump:
#ifndef BREAK_BUMP
		if
		:: r_snap == spare[w] -> r_moved = true
		:: else
		fi;
#endif
		pc[w] = HAZARD }

	/* A protected block waits in the reserve; only one can be protected. */
	:: atomic { up == UP && pc[w] == HAZARD ->
hazard_check:
		if
#ifndef BREAK_HAZARD_CHECK
		:: hazard == spare[w] && reserve != NONE ->
			v = reserve; reserve = spare[w]; spare[w] = v;
			pc[w] = BUMP
		:: hazard == spare[w] && reserve == NONE -> assert(false)
		:: hazard != spare[w] -> pc[w] = HALF0
#else
		:: pc[w] = HALF0
#endif
		fi }

	:: atomic { up == UP && pc[w] == HALF0 ->
fill:		half0[spare[w]] = id[w];
		unfenced[spare[w]] = true;
		pc[w] = HALF1 }

	:: atomic { up == UP && pc[w] == HALF1 ->
		half1[spare[w]] = id[w];
data_fence:
#ifndef BREAK_DATA_FENCE
		unfenced[spare[w]] = false;
#endif
		pc[w] = PENDING }

	:: atomic { up == UP && pc[w] == PENDING ->
pending_begin:
#ifndef BREAK_PENDING
		pending[lba[w]]++;
#endif
		goto load }

	:: atomic { up == UP && pc[w] == LOAD ->
load:		old[w] = map[lba[w]];
#ifdef BREAK_LOSER
		loaded[w] = last[lba[w]];
#endif
		swapping[w] = !zeroing[w];
		pc[w] = SWAP }

	:: atomic { up == UP && pc[w] == SWAP && map[lba[w]] == old[w] ->
swap:		map[lba[w]] = (zeroing[w] -> BLOCK(old[w]) + 8 * id[w] : spare[w]);
		last[lba[w]]++;
		pos[id[w]] = last[lba[w]];
		pc[w] = PERSIST }

	:: atomic { up == UP && pc[w] == SWAP && map[lba[w]] != old[w] ->
#ifdef BREAK_LOSER
		/* The loser is done: its place in history is right behind what it had loaded. */
		raise_need(lba[w], loaded[w] + 1);
		pending[lba[w]]--;
		id[w] = 0; zeroing[w] = false; swapping[w] = false; old[w] = 0; lba[w] = 0;
		pc[w] = IDLE
#else
again:		pc[w] = LOAD
#endif
		}

	:: atomic { up == UP && pc[w] == PERSIST ->
entry_persist:
#ifndef BREAK_ENTRY_PERSIST
		flush_entry(lba[w]);
#endif
done:
#ifndef BREAK_PENDING
		pending[lba[w]]--;
#endif
		if
		:: !zeroing[w] -> spare[w] = BLOCK(old[w])
		:: else
		fi;
		raise_need(lba[w], pos[id[w]]);
		id[w] = 0; zeroing[w] = false; swapping[w] = false; old[w] = 0; lba[w] = 0;
		pc[w] = IDLE }

	/* The thread dies; its stripe of pending stays raised, so readers flush for ever. */
	:: atomic { up == UP && kills < KILLS && pc[w] != IDLE && pc[w] != HAND ->
		kills++;
		pc[w] = HAND }

	:: atomic { up == UP && pc[w] == HAND ->
hand_over:
		if
		:: !swapping[w]
		:: swapping[w] && BLOCK(map[lba[w]]) == spare[w] ->
#ifndef BREAK_HAND_OVER_PERSIST
			flush_entry(lba[w]);
#endif
			spare[w] = BLOCK(old[w])
		:: swapping[w] && BLOCK(map[lba[w]]) != spare[w] &&
		   BLOCK(map[lba[w]]) == BLOCK(old[w])
		:: swapping[w] && BLOCK(map[lba[w]]) != spare[w] &&
		   BLOCK(map[lba[w]]) != BLOCK(old[w]) ->
#ifndef BREAK_RETIRE
			spare[w] = NONE
#endif
		fi;
		id[w] = 0; zeroing[w] = false; swapping[w] = false; old[w] = 0; lba[w] = 0;
		pc[w] = IDLE }
	od
}

inline read_done()
{
	place(r_lba, r_entry, r_half0, r_half1);
	assert(v >= r_start);
	raise_need(r_lba, v);
	r_lba = 0; r_entry = 0; r_half0 = 0; r_half1 = 0; r_start = 0;
	r_pc = R_IDLE
}

/* Whoever sees an entry that may not be durable makes it so. */
inline reader_flush()
{
	if
#ifndef BREAK_READER_PERSIST
	:: pending[r_lba] > 0 -> flush_entry(r_lba)
#endif
	:: else
	fi
}

active proctype reader()
{
	do
	:: atomic { up == UP && r_pc == R_IDLE ->
		if
		:: r_lba = 0
		:: r_lba = 1
		fi;
		r_start = need[r_lba];
		goto read_load }

	:: atomic { up == UP && r_pc == R_LOAD ->
read_load:	r_entry = map[r_lba];
		r_pc = (ZERO(r_entry) -> R_FLUSH : R_SNAP) }

	:: atomic { up == UP && r_pc == R_SNAP ->
read_reuse:	r_snap = BLOCK(r_entry);
		r_moved = false;
		r_pc = R_AGAIN }

	:: atomic { up == UP && r_pc == R_AGAIN ->
read_again:
#ifdef BREAK_AGAIN
		r_pc = R_FLUSH
#else
		if
		:: map[r_lba] == r_entry -> r_pc = R_FLUSH
		:: else -> r_snap = NONE; r_moved = false; r_pc = R_LOAD
		fi
#endif
		}

	:: atomic { up == UP && r_pc == R_FLUSH ->
read_persist:	reader_flush();
		if
		:: ZERO(r_entry) -> read_done()
		:: else -> r_half0 = half0[BLOCK(r_entry)]; r_pc = R_HALF1
		fi }

	:: atomic { up == UP && r_pc == R_HALF1 ->
		r_half1 = half1[BLOCK(r_entry)];
read_check:
		if
		:: r_moved -> r_half0 = 0; r_half1 = 0; r_pc = H_LOAD
		:: else -> read_done()
		fi;
		r_snap = NONE; r_moved = false }

	/* It was overtaken, and protects its block now. */
	:: atomic { up == UP && r_pc == H_LOAD ->
		r_entry = map[r_lba];
		r_pc = (ZERO(r_entry) -> H_FLUSH : H_PUT) }

	:: atomic { up == UP && r_pc == H_PUT ->
hazard_put:	hazard = BLOCK(r_entry);
		r_pc = H_AGAIN }

	:: atomic { up == UP && r_pc == H_AGAIN ->
hazard_again:
#ifdef BREAK_HAZARD_AGAIN
		r_pc = H_FLUSH
#else
		r_pc = (map[r_lba] == r_entry -> H_FLUSH : H_LOAD)
#endif
		}

	:: atomic { up == UP && r_pc == H_FLUSH ->
		reader_flush();
		if
		:: ZERO(r_entry) -> hazard = NONE; read_done()
		:: else -> r_half0 = half0[BLOCK(r_entry)]; r_pc = H_HALF1
		fi }

	:: atomic { up == UP && r_pc == H_HALF1 ->
		r_half1 = half1[BLOCK(r_entry)];
		hazard = NONE;
		read_done() }
	od
}

active proctype world()
{
	atomic {
		map[1] = 1; d_map[1] = 1;
		spare[0] = 2; spare[1] = 3;
		half0[2] = TORN; half0[3] = TORN; half0[4] = TORN;
		run writer(0);
		run writer(1)
	}
	do
	:: atomic { map[0] != d_map[0] ->
evict:		flush_entry(0) }
	:: atomic { map[1] != d_map[1] -> flush_entry(1) }

	:: atomic { crashes < CRASHES ->
crash:		crashes++;
		process_dies();
		if
		:: power_fails()
		:: true
		fi }

	:: atomic { up == DOWN ->
recover_scan:	find_spares();
		judge();
		up = SCANNED }

	:: atomic { up == SCANNED ->
recover_flush:
#ifndef BREAK_RECOVERY_FLUSH
		flush_entry(0);
		flush_entry(1);
#endif
		up = UP }
	od
}
