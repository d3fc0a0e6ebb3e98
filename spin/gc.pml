/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Garbage collection of an object stream (docs/DESIGN.md, src/lsvd/gc.c, doom.c): moves against
 * overwrites, fuzzy checkpoints, deletions, readers and crashes. Of the two kept checkpoints
 * recovery may find the newer one damaged.
 *
 * Promises: recovery finds every data object that had been installed, and each sector holds what
 * the last data object of the image wrote; what the map names exists, then and while the volume is
 * used, also for a read that looked it up before; so too after any number of further crashes.
 *
 * Each object holds one sector: a data object a new version of it, a GC object the version of the
 * object that it was read from. Puts land in any order, and may land after the death of who sent
 * them; objects are installed in the order of numbers. The labels are the steps that the C code has.
 *
 * Bounds: 2 sectors, 4 objects, 2 checkpoints, 2 crashes.
 */
#define SECTORS 2
#define NUMBERS 4
#define CKPTS   2
#define CRASHES 2

#define DATA 1
#define GC   2

/* Objects, by number. */
byte type[NUMBERS + 1], lba[NUMBERS + 1], src[NUMBERS + 1], version[NUMBERS + 1];
byte prev[NUMBERS + 1];   /* the data object before it */
bool sent[NUMBERS + 1];   /* on its way */
bool stored[NUMBERS + 1];
bool outside[NUMBERS + 1]; /* of every window: behind the end of a former owner's stream */
byte since[NUMBERS + 1];  /* doomed: the first checkpoint without it */

/* Checkpoints, newest first; no 0: none. */
byte r_no[2], r_cov[2], r_data[2];
byte r_map0[2], r_map1[2];

/* The owner. */
byte map[SECTORS];
byte next = 1, installed, data, installed_data;
byte picked, picked_lba;      /* GC has read it, and has no number yet */
byte ck, ck_cov, ck_data, ck_at, ck_no, w[SECTORS];
byte reading;                 /* a read has looked this object up */
byte crashes;

hidden byte i, k, n, last;
hidden byte end;

inline apply(j)
{
	if
	:: type[j] == DATA -> map[lba[j]] = j
#ifdef BREAK_MOVE_CHECK
	:: type[j] == GC -> map[lba[j]] = j
#else
	:: type[j] == GC && map[lba[j]] == src[j] -> map[lba[j]] = j
#endif
	:: else
	fi
}

/* From root k: the map, and then what follows it. Sets last, the last data object of the image. */
inline roll()
{
	map[0] = (k < 2 -> r_map0[k] : 0);
	map[1] = (k < 2 -> r_map1[k] : 0);
	last = (k < 2 -> r_data[k] : 0);
	installed = (k < 2 -> r_cov[k] : 0);
	end = false;
	for (n : 1 .. NUMBERS) {
		if
		:: n > (k < 2 -> r_cov[k] : 0) && stored[n] && !outside[n] && !end ->
			if
			:: prev[n] == last ->
				apply(n);
				installed = n;
				if
				:: type[n] == DATA -> last = n
				:: else
				fi
			:: else -> end = true
			fi
		:: else
		fi
	}
}

/* What the image must be. */
inline judge()
{
	assert(last >= installed_data);
	for (i : 0 .. SECTORS - 1) {
		v = 0;
		for (n : 1 .. NUMBERS) {
			if
			:: n <= last && type[n] == DATA && lba[n] == i && !outside[n] -> v = n
			:: else
			fi
		}
		assert(map[i] == 0 || stored[map[i]]);
		assert((map[i] == 0 && v == 0) || version[map[i]] == v);
	}
}

hidden byte v;

inline new_object(t, l, s, ver)
{
	type[next] = t;
	lba[next] = l;
	src[next] = s;
	version[next] = ver;
	prev[next] = data;
	sent[next] = true;
	if
	:: t == DATA -> data = next
#ifdef BREAK_PREV_DATA
	:: t == GC -> data = next
#endif
	:: else
	fi;
	next++
}

inline sweep(upto)
{
	for (n : 1 .. NUMBERS) {
		if
		:: n <= upto && type[n] != 0 && since[n] == 0 && map[0] != n && map[1] != n ->
			since[n] = ck_no
		:: else
		fi
	}
}

active proctype owner()
{
	do
	:: atomic { next <= NUMBERS ->
write:		if
		:: new_object(DATA, 0, 0, next)
		:: new_object(DATA, 1, 0, next)
		fi }

	/* Only what a durable checkpoint covers. */
	:: atomic { picked == 0 && r_no[0] != 0 && next <= NUMBERS ->
gc_read:	if
		:: map[0] != 0 && map[0] <= r_cov[0] -> picked = map[0]; picked_lba = 0
		:: map[1] != 0 && map[1] <= r_cov[0] -> picked = map[1]; picked_lba = 1
		:: else
		fi }

	:: atomic { picked != 0 && next <= NUMBERS ->
gc_submit:	new_object(GC, picked_lba, picked, version[picked]);
		picked = 0 }

	:: atomic { sent[1] && !stored[1] -> stored[1] = true; sent[1] = false }
	:: atomic { sent[2] && !stored[2] -> stored[2] = true; sent[2] = false }
	:: atomic { sent[3] && !stored[3] -> stored[3] = true; sent[3] = false }
	:: atomic { sent[4] && !stored[4] -> stored[4] = true; sent[4] = false }

#ifdef BREAK_PUT_FIRST
	:: atomic { installed + 1 < next && (stored[installed + 1] || type[installed + 1] == GC) ->
#else
	:: atomic { installed + 1 < next && stored[installed + 1] ->
#endif
install:	installed++;
		apply(installed);
		if
		:: type[installed] == DATA -> installed_data = installed
		:: else
		fi }

	/* A checkpoint: the walk is not atomic. */
	:: atomic { ck == 0 && ck_no < CKPTS && installed > 0 ->
ckpt_begin:	ck = 1;
		ck_no++;
		ck_cov = installed;
		ck_data = installed_data;
		ck_at = 0;
#ifndef BREAK_SWEEP_FIRST
		sweep(installed)
#endif
		}
	:: atomic { ck == 1 && ck_at < SECTORS ->
ckpt_step:	w[ck_at] = map[ck_at];
		ck_at++ }
	:: atomic { ck == 1 && ck_at == SECTORS ->
ckpt_replaced:	r_no[1] = r_no[0]; r_cov[1] = r_cov[0]; r_data[1] = r_data[0];
		r_map0[1] = r_map0[0]; r_map1[1] = r_map1[0];
#ifdef BREAK_SWEEP_FIRST
		sweep(installed);
#endif
		r_no[0] = ck_no; r_cov[0] = ck_cov; r_data[0] = ck_data;
		r_map0[0] = w[0]; r_map1[0] = w[1];
		ck = 0 }

	/* Deleting one that is doomed. */
	:: atomic { true ->
doom_delete:	for (n : 1 .. NUMBERS) {
			if
#ifdef BREAK_CHECKPOINT
			:: n <= installed && type[n] != 0 && map[0] != n && map[1] != n &&
#else
			:: since[n] != 0 && r_no[0] >= since[n] &&
#ifndef BREAK_BOTH
			   (r_no[1] == 0 || r_no[1] >= since[n]) &&
#endif
#endif
#ifndef BREAK_READER
			   reading != n &&
#endif
			   stored[n] ->
				stored[n] = false
			:: else
			fi
		} }

	:: atomic { reading == 0 ->
read_slice:	if
		:: map[0] != 0 -> reading = map[0]
		:: map[1] != 0 -> reading = map[1]
		:: else
		fi }
	:: atomic { reading != 0 ->
read_done:	assert(stored[reading]);
		reading = 0 }

	/* Death, and the next owner: by the newer checkpoint, or by the older one. */
	:: atomic { crashes < CRASHES ->
recover:	crashes++;
		if
		:: k = (r_no[0] != 0 -> 0 : 2)
		:: r_no[1] != 0 -> k = 1
		fi;
		roll();
		judge();
		/* Its stream ends here. What comes later behind that never counts; in front it may. */
		for (n : 1 .. NUMBERS) {
			if
			:: n > installed && type[n] != 0 -> outside[n] = true
			:: else
			fi;
			since[n] = 0
		}
		if
		:: k == 1 -> /* the damaged one is not kept */
			r_no[0] = r_no[1]; r_cov[0] = r_cov[1]; r_data[0] = r_data[1];
			r_map0[0] = r_map0[1]; r_map1[0] = r_map1[1]; r_no[1] = 0
		:: else
		fi;
		data = last;
		installed_data = last;
		installed = next - 1;
		picked = 0;
		reading = 0;
		ck = 0 }

	:: next > NUMBERS && crashes == CRASHES -> break
	od
}
