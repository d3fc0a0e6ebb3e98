/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Destaging to a stream of objects (docs/DESIGN.md, L1, L7, P1 to P3, section 6): several puts in
 * flight that complete in any order, or land late, when their writer is dead; installation over
 * the contiguous prefix only; the log forgets after the map has taken over; attaching with two
 * replacements of the superblock.
 *
 * Promises: at every moment a read finds the newest acknowledged write, in the log or through the
 * map. After a crash that keeps the cache, everything durable is there. After one that loses the
 * cache, the image is a prefix of the history at or after what was reported destaged. Whatever a
 * recovery has answered, the next one answers again.
 *
 * Object number s holds write number s. A write is known by (number, epoch in which it was
 * acknowledged); hist[] is the truth. Labels are step names that the C code quotes.
 *
 * Bounds: 3 writes alive at a time, 3 puts in flight, 3 epochs: 2 crashes, of which one may fall
 * between the steps of an attach, and each keeps or loses the cache.
 */
#define N      3
#define WINDOW 3
#define EPOCHS 3

#define NONE      0
#define IN_FLIGHT 1
#define LANDED    2 /* the object is there, the writer does not know yet */
#define COMPLETE  3

#define BEFORE_CAS 0
#define AFTER_CAS  1
#define SERVING    2

byte epoch;
byte phase = SERVING;
byte acked;     /* writes acknowledged */
byte durable;   /* of these, in the log for good: a FLUSH may have said so */
byte taken;     /* put into batches */
byte installed; /* named by the map */
byte forgot;    /* no longer in the log: reported as destaged */
byte hist[N + 1];
byte put[N + 1];

/* obj[e * (N + 1) + s]: 1 + the epoch of the write that it holds; 0: no such object. */
byte obj[EPOCHS * (N + 1)];
byte late[EPOCHS * (N + 1)];
byte end[EPOCHS];  /* the last object that counts of an epoch, once a successor has said so */
bool ended[EPOCHS];

hidden byte i, e, k, r, v;

#ifdef BREAK_KEY_EPOCH
#define KEY(ep, s) (s)
#else
#define KEY(ep, s) ((ep) * (N + 1) + (s))
#endif

/* Sets v to what object number s holds for a reader of the stream, 0 for nothing. */
inline lookup(s)
{
	v = 0;
	for (e : 0 .. EPOCHS - 1) {
		if
#ifdef BREAK_ATTACH_END
		:: e <= epoch && obj[KEY(e, s)] != 0 -> v = obj[KEY(e, s)]
#else
		:: e <= epoch && obj[KEY(e, s)] != 0 && (!ended[e] || s <= end[e]) ->
			v = obj[KEY(e, s)]
#endif
		:: else
		fi
	}
}

/* Sets k to the length of the unbroken run of objects. */
inline roll_forward()
{
	k = 0;
	for (i : 1 .. N) {
		lookup(i);
		if
		:: v != 0 && k == i - 1 -> k = i
		:: else
		fi
	}
}

inline check_reads()
{
	for (i : 1 .. acked) {
		if
		:: i > forgot                  /* the log has it */
		:: else ->
			assert(i <= installed);
			lookup(i);
			assert(v == hist[i] + 1)
		fi
	}
}

/* The image after a recovery is hist[1..last]; the rest of the history never was. */
inline become(last)
{
	acked = last;
	for (i : 1 .. N) {
		put[i] = NONE;
		if
		:: i > last -> hist[i] = 0
		:: else
		fi
	}
	durable = last;
	taken = k;
	installed = k;
	forgot = k
}

inline record_end()
{
	for (e : 0 .. EPOCHS - 1) {
		if
		:: e < epoch && !ended[e] -> ended[e] = true; end[e] = k
		:: else
		fi
	}
}

/* What survives of the log: r of the writes, then k from the objects. */
inline attach(lost)
{
	roll_forward();
	assert(k >= forgot);
	for (i : 1 .. k) {
		lookup(i);
		assert(i <= acked && v == hist[i] + 1)
	}
	if
	:: lost -> become(k)
	:: else ->
		assert(r >= k);
		become(r)
	fi
}

byte log_has;  /* what the crash left of the log: writes 1..log_has, or nothing */
bool log_lost;

active proctype volume()
{
	do
	:: atomic { phase == SERVING && acked < N ->
acknowledge:	acked++;
		hist[acked] = epoch }

	:: atomic { phase == SERVING && durable < acked ->
log_flush:	durable++ }

#ifdef BREAK_WRITE_AHEAD
	:: atomic { phase == SERVING && taken < acked && taken - installed < WINDOW ->
#else
	:: atomic { phase == SERVING && taken < durable && taken - installed < WINDOW ->
#endif
batch:		taken++;
		put[taken] = IN_FLIGHT }

	:: atomic { phase == SERVING && taken > installed ->
		select(i : 1 .. N);
put_lands:	if
		:: put[i] == IN_FLIGHT ->
			put[i] = LANDED;
			if
			:: obj[KEY(epoch, i)] == 0 -> obj[KEY(epoch, i)] = hist[i] + 1
			:: else /* -EEXIST: taken for a retry of our own */
			fi
		:: put[i] == LANDED ->
put_done:		put[i] = COMPLETE
		:: else
		fi }

	:: atomic { phase == SERVING && taken > installed ->
install:
#ifdef BREAK_CONTIGUOUS
		select(i : 1 .. N);
		if
		:: put[i] == COMPLETE && i > installed -> installed = i
		:: else
		fi
#else
		if
		:: put[installed + 1] == COMPLETE -> installed++
		:: else
		fi
#endif
		}

#ifdef BREAK_INSTALL_FIRST
	:: atomic { phase == SERVING && forgot < taken && put[forgot + 1] == COMPLETE ->
#else
#ifdef BREAK_PUT_COMPLETE
	:: atomic { phase == SERVING && forgot < taken ->
		installed = (installed > forgot -> installed : forgot + 1);
#else
	:: atomic { phase == SERVING && forgot < installed ->
#endif
#endif
log_forgets:	forgot++ }

	:: atomic { phase == SERVING -> check_reads() }

	:: atomic { true ->
		select(i : 1 .. EPOCHS * (N + 1) - 1);
late_put_lands:	if
		:: late[i] != 0 ->
			if
			:: obj[i] == 0 -> obj[i] = late[i]
			:: else
			fi;
			late[i] = 0
		:: else
		fi }

	:: atomic { phase == SERVING && epoch < EPOCHS - 1 ->
crash:		for (i : 1 .. N) {
			if
			:: put[i] == IN_FLIGHT -> late[KEY(epoch, i)] = hist[i] + 1
			:: else
			fi
		}
		select(r : 0 .. N);
		if
		:: r < durable -> r = durable
		:: r > acked -> r = acked
		:: else
		fi;
		if
		:: log_lost = true; r = 0
		:: log_lost = false
		fi;
		log_has = r;
		phase = BEFORE_CAS }

	:: atomic { phase == BEFORE_CAS && epoch < EPOCHS - 1 ->
attach_begin:	epoch++;
		phase = AFTER_CAS }

	:: atomic { phase == AFTER_CAS ->
attach_list:	r = log_has;
		attach(log_lost);
#if !defined(BREAK_END_BEFORE_SERVE) && !defined(BREAK_ATTACH_END)
		record_end();
#endif
		phase = SERVING }

#ifdef BREAK_END_BEFORE_SERVE
	:: atomic { phase == SERVING && epoch > 0 && !ended[epoch - 1] ->
		roll_forward();
		record_end() }
#endif

	/* A crash inside an attach. */
	:: atomic { phase == AFTER_CAS -> phase = BEFORE_CAS }
	:: atomic { phase == BEFORE_CAS && !log_lost ->
		log_lost = true;
		log_has = 0 }

	:: phase == BEFORE_CAS && epoch == EPOCHS - 1 -> break
	od
}
