/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Group commit (docs/DESIGN.md, L4, L8 and "engines"): reserve, fill, publish; seal; segment
 * writes that complete in any order; one device flush for many barriers; a power cut anywhere.
 *
 * Promise (P1): a barrier returns only if everything that was acknowledged before it was
 * submitted survives any crash. Recovery takes the longest unbroken chain of good segments.
 * And reads show, while the machine runs, what replay would show: the highest LSN wins.
 *
 * Each option of the main loop is one step, atomic as it is under the host's lock; its label is
 * the name by which the C code quotes it. A device write is SEALED -> WRITING -> WRITTEN ->
 * DURABLE; a crash keeps any subset of WRITING and WRITTEN. A write with FUA is a barrier whose
 * goal is its own LSN, which FLUSH covers.
 *
 * Bounds: 4 writes of any interleaving, 2 to a segment, 3 barriers, one crash at any point.
 * What is not modelled: the ring (tail.pml), more than one crash (tail.pml), the home (destage.pml).
 */
#define WRITES   4
#define SEGMENTS 6
#define BARRIERS 3
#define CAPACITY 2

#define OPEN    0
#define SEALED  1
#define WRITING 2
#define WRITTEN 3
#define DURABLE 4

#define IDLE    0
#define WAITING 1 /* for a commit to take it */
#define TAKEN   2
#define DONE    3

byte reserved;             /* the highest LSN given out */
byte published;            /* how many writes are acknowledged; in order, so also the highest */
byte shown;                /* the LSN that a read sees: all writes are to one sector */
bool filled[WRITES + 1];
bool acked[WRITES + 1];
byte seg_of[WRITES + 1];

byte open_seg = 1;
byte in_open;              /* records in it */
byte state[SEGMENTS + 1];
bool good[SEGMENTS + 1];   /* the bytes sent to the device were complete */
bool covered[SEGMENTS + 1]; /* by the flush in flight */

byte barrier[BARRIERS];
byte goal[BARRIERS];
byte promised;             /* the highest LSN that a returned barrier vouched for */

byte commit;               /* 0 none, 1 waits for segment writes, 2 flush in flight */
byte commit_last;          /* the last segment that this commit covers */
hidden byte i, n, chain; /* scratch within one step */
hidden byte whole;
bool crashed;

inline highest_acked(ret)
{
	ret = 0;
	for (i : 1 .. WRITES) {
		if
		:: acked[i] -> ret = i
		:: else
		fi
	}
}

inline close_open()
{
	state[open_seg] = SEALED;
	open_seg++;
	in_open = 0
}

/* Sets whole: no slot of segment n waits for its data. */
inline look_at_fills()
{
	whole = true;
	for (i : 1 .. reserved) {
		if
		:: seg_of[i] == n && !filled[i] -> whole = false
		:: else
		fi
	}
}

/* Sets whole: every segment up to commit_last has been written, so that a flush covers it. */
inline look_at_writes()
{
	whole = true;
	for (i : 1 .. commit_last) {
		if
		:: state[i] < WRITTEN -> whole = false
		:: else
		fi
	}
}

inline finish_commit()
{
	for (i : 0 .. BARRIERS - 1) {
		if
#ifdef BREAK_GATHER
		:: (barrier[i] == TAKEN || barrier[i] == WAITING) ->
#else
		:: barrier[i] == TAKEN ->
#endif
			barrier[i] = DONE;
			promised = (goal[i] > promised -> goal[i] : promised)
		:: else
		fi
	}
	commit = 0
}

inline crash()
{
	chain = 0;
	whole = true;
	for (n : 1 .. SEGMENTS) {
		if
		:: state[n] == WRITING || state[n] == WRITTEN ->
			if
			:: true              /* lands whole */
			:: good[n] = false   /* is lost or torn: its checksum says so */
			fi
		:: state[n] == DURABLE
		:: else -> good[n] = false
		fi;
recover_chain:
		if
#ifdef BREAK_CHAIN
		:: good[n] -> assert(chain == n - 1); chain = n
#else
		:: good[n] && chain == n - 1 -> chain = n
#endif
		:: else
		fi
	}
	for (i : 1 .. WRITES) {
		if
		:: i <= promised -> assert(seg_of[i] != 0 && seg_of[i] <= chain)
		:: else
		fi
	}
	crashed = true
}

active proctype log()
{
	do
	:: atomic { reserved < WRITES && in_open < CAPACITY && open_seg < SEGMENTS ->
reserve:	reserved++;
		seg_of[reserved] = open_seg;
		in_open++ }

	:: atomic { reserved > 0 ->
		select(n : 1 .. WRITES);
fill:		if
		:: n <= reserved && !filled[n] -> filled[n] = true
		:: else
		fi }

	:: atomic { published < reserved ->
#ifdef BREAK_PUBLISH_ORDER
		select(n : 1 .. WRITES);
#else
		n = published + 1;
#endif
publish:	if
		:: n <= reserved && filled[n] && !acked[n] ->
			acked[n] = true;
			published++;
			shown = n;
			highest_acked(n);
			assert(shown == n)
		:: else
		fi }

	:: atomic { in_open == CAPACITY && open_seg < SEGMENTS ->
seal_full:	close_open() }

	:: atomic { open_seg > 1 ->
		select(n : 1 .. SEGMENTS);
		look_at_fills();
write:		if
#ifdef BREAK_SEAL_WAITS_FILLS
		:: state[n] == SEALED ->
#else
		:: state[n] == SEALED && whole ->
#endif
			good[n] = whole;
			state[n] = WRITING
		:: else
		fi }

	:: atomic { open_seg > 1 ->
		select(n : 1 .. SEGMENTS);
written:	if
		:: state[n] == WRITING -> state[n] = WRITTEN
		:: else
		fi }

	:: atomic { barrier[0] == IDLE || barrier[1] == IDLE || barrier[2] == IDLE ->
		select(n : 0 .. BARRIERS - 1);
barrier_submit:	if
		:: barrier[n] == IDLE && (n == 0 || barrier[n - 1] != IDLE) ->
			barrier[n] = WAITING;
			highest_acked(goal[n])
		:: else
		fi }

	:: atomic { commit == 0 && open_seg < SEGMENTS &&
		    (barrier[0] == WAITING || barrier[1] == WAITING || barrier[2] == WAITING) ->
commit_begin:	for (i : 0 .. BARRIERS - 1) {
			if
			:: barrier[i] == WAITING -> barrier[i] = TAKEN
			:: else
			fi
		}
#ifndef BREAK_COMMIT_SEALS
		if
		:: in_open > 0 -> close_open()
		:: else
		fi;
#endif
		commit_last = open_seg - 1;
		commit = 1 }

	:: atomic { commit == 1 ->
		look_at_writes();
commit_flush:	if
#ifdef BREAK_FLUSH_COVERS
		:: true ->
#else
		:: whole ->
#endif
			for (i : 1 .. SEGMENTS) {
				covered[i] = (state[i] == WRITTEN)
			}
			commit = 2
		:: else
		fi }

	:: atomic { commit == 2 ->
		look_at_writes();
commit_done:	if
		:: whole ->
#ifndef BREAK_FLUSH
			for (i : 1 .. SEGMENTS) {
				if
				:: covered[i] -> state[i] = DURABLE; covered[i] = false
				:: else
				fi
			}
#endif
			finish_commit()
		:: else
		fi }

	:: atomic { !crashed -> crash() }; break
	od
}
