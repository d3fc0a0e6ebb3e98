/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The ring, its tail and the two superblocks (docs/DESIGN.md, L2, L4 to L6, L12): freed space is
 * overwritten only after a superblock with the new tail is durable; recovery walks the unbroken
 * chain, flushes, raises log_epoch and only then serves; crashes of the machine (what was not
 * flushed lands, is lost or is torn) and of the process (the device's write cache lives on), one
 * after the other, also inside recovery.
 *
 * Promises: recovery always finds a superblock; every segment that a flush or an earlier recovery
 * vouched for and that the home does not hold is found; no segment is found that a recovery had
 * given up before; log and home leave no gap.
 *
 * A segment is known by (number, epoch), and its header names the epoch of its predecessor, which
 * stands for the CRC of the previous header. A superblock carries a cut: from segment `cut` on only
 * its own epoch counts. Labels are step names that the C code quotes.
 *
 * Bounds: a ring of 3 segments, 5 segment numbers (so that it wraps), 3 crashes.
 */
#define RING    3
#define NUMBERS 5
#define CRASHES 3

#define TORN 255

#define RUNNING  0
#define DOWN     1
#define WALKED   2 /* recovery has read what there is */
#define FLUSHED  3
#define SB_SENT  4

/* Media, and what the device's write cache holds on top of it. Number 0: nothing. */
byte num[RING], ep[RING], prev[RING];
byte p_num[RING], p_ep[RING], p_prev[RING];
byte sb_seq[2], sb_tail[2], sb_ep[2], sb_cut[2];
byte p_sb_seq[2], p_sb_tail[2], p_sb_ep[2], p_sb_cut[2];

/* The log as it runs. */
byte phase = RUNNING;
byte epoch = 1;
byte cut = 1;
byte next = 1;
byte seq = 1;
byte seq_durable = 1;
byte tail_sent = 1;  /* in the newest superblock */
byte tail_free = 1;  /* segments before it may be overwritten */
byte vouched;        /* the highest number that survives every crash */
byte home;           /* the highest number that the home holds */
byte hist[NUMBERS + 1]; /* the epoch under which a number is part of history */
byte crashes;

hidden byte i, n, s, v, last, best;

inline harden_segment(j)
{
	if
	:: p_num[j] != 0 ->
		num[j] = p_num[j];
		ep[j] = p_ep[j];
		prev[j] = p_prev[j];
		p_num[j] = 0; p_ep[j] = 0; p_prev[j] = 0
	:: else
	fi
}

inline harden_sb(j)
{
	if
	:: p_sb_seq[j] != 0 ->
		sb_seq[j] = p_sb_seq[j];
		sb_tail[j] = p_sb_tail[j];
		sb_ep[j] = p_sb_ep[j];
		sb_cut[j] = p_sb_cut[j];
		p_sb_seq[j] = 0; p_sb_tail[j] = 0; p_sb_ep[j] = 0; p_sb_cut[j] = 0
	:: else
	fi
}

inline flush_device()
{
	for (i : 0 .. RING - 1) {
		harden_segment(i)
	}
	for (i : 0 .. 1) {
		harden_sb(i)
	}
}

/* Each cached write lands, is lost, or leaves something that fails its checksum. */
inline lose_power()
{
	for (i : 0 .. RING - 1) {
		if
		:: p_num[i] != 0 ->
			if
			:: harden_segment(i)
			:: p_num[i] = 0
			:: num[i] = TORN; ep[i] = 0; prev[i] = 0; p_num[i] = 0
			fi;
			p_ep[i] = 0; p_prev[i] = 0
		:: else
		fi
	}
	for (i : 0 .. 1) {
		if
		:: p_sb_seq[i] != 0 ->
			if
			:: harden_sb(i)
			:: p_sb_seq[i] = 0
			:: sb_seq[i] = 0; sb_tail[i] = 0; sb_ep[i] = 0; sb_cut[i] = 0; p_sb_seq[i] = 0
			fi;
			p_sb_tail[i] = 0; p_sb_ep[i] = 0; p_sb_cut[i] = 0
		:: else
		fi
	}
}

inline write_sb(new_tail, new_ep, new_cut)
{
	seq++;
#ifdef BREAK_ALTERNATE
	s = 0;
#else
	s = seq % 2;
#endif
	p_sb_seq[s] = seq;
	p_sb_tail[s] = new_tail;
	p_sb_ep[s] = new_ep;
	p_sb_cut[s] = new_cut
}

/* Sets best to the valid superblock with the highest seq, as the device shows it now. */
inline choose_sb()
{
	best = 2;
	v = 0;
	for (i : 0 .. 1) {
		if
		:: p_sb_seq[i] > v -> v = p_sb_seq[i]; best = i
		:: p_sb_seq[i] == 0 && sb_seq[i] > v -> v = sb_seq[i]; best = i
		:: else
		fi
	}
	assert(best < 2);
	seq = v;
	if
	:: p_sb_seq[best] != 0 ->
		tail_sent = p_sb_tail[best]; epoch = p_sb_ep[best]; cut = p_sb_cut[best]
	:: else ->
		tail_sent = sb_tail[best]; epoch = sb_ep[best]; cut = sb_cut[best]
	fi
}

/* Sets last: the chain from the tail is unbroken up to there. v is the predecessor's epoch. */
inline walk()
{
	last = tail_sent - 1;
	v = 0;
	for (n : 1 .. NUMBERS) {
		i = n % RING;
		if
		:: n == last + 1 && p_num[i] == n &&
#ifndef BREAK_EPOCH_CHECK
		   (n < cut || p_ep[i] == epoch) &&
#endif
		   (n == tail_sent || p_prev[i] == v) ->
			last = n; v = p_ep[i]
		:: n == last + 1 && p_num[i] == 0 && num[i] == n &&
#ifndef BREAK_EPOCH_CHECK
		   (n < cut || ep[i] == epoch) &&
#endif
		   (n == tail_sent || prev[i] == v) ->
			last = n; v = ep[i]
		:: else
		fi
	}
}

/* What the walk found is the history, and nothing that was vouched for is missing. */
inline judge()
{
	assert(tail_sent <= home + 1);
	assert(last >= vouched || vouched <= home);
	for (n : 1 .. NUMBERS) {
		i = n % RING;
		if
		:: n >= tail_sent && n <= last && n > home ->
			assert(hist[n] == (p_num[i] == n -> p_ep[i] : ep[i]))
		:: else
		fi
	}
}

active proctype log()
{
	sb_seq[1] = 1; sb_tail[1] = 1; sb_ep[1] = 1; sb_cut[1] = 1;
	do
	:: atomic { phase == RUNNING && next <= NUMBERS && next - tail_free < RING ->
append:		i = next % RING;
		p_num[i] = next;
		p_ep[i] = epoch;
		p_prev[i] = (next > 1 -> hist[next - 1] : 0);
		hist[next] = epoch;
		next++ }

	:: atomic { phase == RUNNING ->
flush:		flush_device();
		vouched = next - 1;
		seq_durable = seq;
		tail_free = tail_sent }

	/* Its completion is a flush: what the home acknowledged before is safe there. */
	:: atomic { phase == RUNNING && home < vouched ->
home_durable:	home++ }

#ifdef BREAK_SB_WAITS
	:: atomic { phase == RUNNING && tail_sent < home + 1 ->
#else
	:: atomic { phase == RUNNING && tail_sent < home + 1 && seq == seq_durable ->
#endif
#ifdef BREAK_HOME_FIRST
tail_sb:	tail_sent = vouched + 1;
#else
tail_sb:	tail_sent = home + 1;
#endif
		write_sb(tail_sent, epoch, cut);
#ifdef BREAK_TAIL_DURABLE
		tail_free = tail_sent
#endif
		}

	:: atomic { phase != DOWN && crashes < CRASHES ->
crash:		crashes++;
		if
		:: lose_power()
		:: true /* only the process dies */
		fi;
		phase = DOWN }

	:: atomic { phase == DOWN ->
recover_walk:	choose_sb();
		walk();
		judge();
		next = last + 1;
		phase = WALKED }

	:: atomic { phase == WALKED ->
recover_flush:
#ifndef BREAK_RECOVERY_FLUSH
		flush_device();
#endif
		phase = FLUSHED }

	:: atomic { phase == FLUSHED ->
recover_epoch:
#ifndef BREAK_EPOCH_BUMP
		epoch++;
#endif
		cut = next;
		write_sb(tail_sent, epoch, cut);
		phase = SB_SENT }

	:: atomic { phase == SB_SENT ->
#ifdef BREAK_RECOVERY_FLUSH
recover_serve:	harden_sb(seq % 2);
#else
recover_serve:	flush_device();
#endif
		for (i : 1 .. NUMBERS) {
			if
			:: i >= next -> hist[i] = 0
			:: else
			fi
		}
		vouched = next - 1;
		seq_durable = seq;
		tail_free = tail_sent;
		phase = RUNNING }

	:: phase == DOWN && crashes == CRASHES -> break
	od
}
