/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Writeback to a device that is written in place (docs/DESIGN.md, L5 to L7, P1, P2): overwrites of
 * one sector race the writeback of its older copies, reads race both, flushes of the backing device
 * fail, the log's space is used again behind a superblock, and the power goes off anywhere.
 *
 * Promises: a read finds nothing older than what was acknowledged when it began. After a crash the
 * sector is what the newest write that the log has kept made of it, at least the newest durable
 * one, and the same after the next crash.
 *
 * Position p of the log holds the write hist[p], of which each has another number, also those at a
 * position that is used again after a crash has cut the log. Labels are step names.
 *
 * Bounds: 5 writes, 3 positions, 2 crashes, 2 failed flushes.
 */
#define N       3
#define WRITES  5
#define CRASHES 2
#define FAILS   2

#define IDLE    0
#define CHOOSE  1
#define WRITE   2
#define LAND    3
#define FLUSH   4
#define SAMPLE  5

byte acked;    /* positions published: what the map of the log names, if not forgotten */
byte durable;  /* of these, on the cache for good */
byte forgot;   /* positions that the backing device was reported to have */
byte sb;       /* the same, as the superblock says on the cache */
byte freed;    /* positions whose space may be overwritten */
byte hist[N + 1];
byte next = 1; /* the next write's number */
byte crashes, fails;

byte home;     /* what the backing device holds durably */
byte seen;     /* what reads of it give */
bool loose[WRITES + 1]; /* written to it since, durable or not: nobody knows */

byte phase;
byte first, last; /* the batch */
byte chosen;      /* the write that it takes home, 0: none, a newer one supersedes it */

bool reading, from_home;
byte floor, got;

hidden byte i, r;

/* Any of what was written since the last good flush may be what is there now. */
inline settle_home()
{
	for (i : 1 .. WRITES) {
		if
		:: loose[i] -> if :: home = i :: skip fi
		:: else
		fi;
		loose[i] = false
	}
}

active proctype volume()
{
	do
	:: atomic { acked < N && next <= WRITES ->
publish:	acked++;
		hist[acked] = next;
		next++ }

	:: atomic { durable < acked ->
log_flush:	durable++ }

	/* Segments that are durable, oldest first. */
	:: atomic { phase == IDLE && forgot < durable ->
		first = forgot + 1;
		select(last : 1 .. N);
		if
		:: last >= first && last <= durable -> phase = CHOOSE
		:: else
		fi;
		i = 0 }

	:: atomic { phase == CHOOSE ->
#ifdef BREAK_NEWEST_COPY
		chosen = hist[first];
#else
newest_copy:	chosen = hist[last];
#endif
superseded:	if
#ifdef BREAK_SUPERSEDED_DURABLE
		:: acked > last -> chosen = 0
#else
		:: durable > last -> chosen = 0
#endif
		:: else
		fi;
		phase = WRITE }

	:: atomic { phase == WRITE ->
		if
		:: chosen != 0 -> loose[chosen] = true
		:: else
		fi;
		phase = LAND }

	:: atomic { phase == LAND ->
		if
		:: chosen != 0 -> seen = chosen
		:: else
		fi;
#ifdef BREAK_FLUSH_BEFORE_DESTAGED
		phase = SAMPLE
#else
		phase = FLUSH
#endif
		}

	:: atomic { phase == FLUSH ->
flush_before_destaged:
		if
		:: chosen != 0 -> home = chosen
		:: else
		fi;
		for (i : 1 .. WRITES) { loose[i] = false };
		phase = SAMPLE }

	/* What it should have covered is durable or lost, whatever reads show. */
	:: atomic { phase == FLUSH && fails < FAILS ->
		fails++;
		settle_home();
		if
		:: seen = home
		:: skip
		fi;
#ifdef BREAK_FLUSH_ERROR_KEEPS
		phase = SAMPLE
#else
flush_error_keeps:
		phase = WRITE
#endif
		}

#ifdef BREAK_FORGET_AFTER_WRITE
	:: atomic { phase == WRITE && forgot < last -> forgot = last }
#endif

	:: atomic { phase == SAMPLE ->
destaged:	forgot = last;
		phase = IDLE }

	:: atomic { sb < forgot ->
superblock:	sb = forgot }

#ifdef BREAK_SB_BEFORE_REUSE
	:: atomic { freed < forgot -> freed = forgot }
#else
	:: atomic { freed < sb ->
reuse:		freed = sb }
#endif

	:: atomic { !reading ->
read_begin:	floor = (acked > 0 -> hist[acked] : 0);
		from_home = acked <= forgot;
		got = floor;
		reading = true }

	:: atomic { reading ->
read_home:	if
		:: from_home -> got = seen
		:: else
		fi;
		assert(got >= floor);
		reading = false }

	:: atomic { crashes < CRASHES ->
crash:		crashes++;
		select(r : 0 .. N);
		if
		:: r < durable -> r = durable
		:: r > acked -> r = acked
		:: else
		fi;
		settle_home();
		/* The chain is whole from where the superblock says that it begins. */
		assert(freed <= sb);
replay:		assert(r > sb || home == (r > 0 -> hist[r] : 0));
		for (i : 1 .. N) {
			if
			:: i > r -> hist[i] = 0
			:: else
			fi
		}
		acked = r;
		durable = r;
		forgot = sb;
		seen = home;
		phase = IDLE;
		first = 0; last = 0; chosen = 0;
		reading = false }

	:: atomic { crashes == CRASHES && acked == forgot && phase == IDLE ->
		assert(seen == (acked > 0 -> hist[acked] : 0));
		break }
	od
}
