/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The simulated world: persistence points, the power, and which faults strike.
 *
 * Invariants
 *  1. Every random decision of devices and stores while they run is drawn from world->rng, in
 *     the order of the calls; so one seed and one program give one history.
 *  2. What a crash leaves is drawn from the seed in struct sim_keep and never from world->rng:
 *     looking at a crash image does not change what happens next.
 *  3. events never goes back, and while the power is off it stands still.
 *
 * Locks: none, all of a world is on one thread.
 */
#include "base/sim_world.h"

#include <errno.h>
#include <string.h>

#define PPM 1000000u

void sim_world_init(struct sim_world *world, uint64_t seed)
{
	memset(world, 0, sizeof(*world));
	rng_seed(&world->rng, seed);
}

void sim_world_power_on(struct sim_world *world)
{
	world->power_off = false;
	world->cut_at = 0;
}

bool sim_world_event(struct sim_world *world)
{
	if (world->power_off)
		return false;
	if (world->on_event)
		world->on_event(world, world->on_event_arg);
	world->events++;
	if (world->events == world->cut_at)
		world->power_off = true;
	return !world->power_off;
}

uint64_t sim_world_below(struct sim_world *world, uint64_t bound)
{
	return bound > 1 ? rng_below(&world->rng, bound) : 0;
}

void sim_world_advance_to(struct sim_world *world, uint64_t when_ns)
{
	if (world->clock_ns < when_ns)
		world->clock_ns = when_ns;
}

int sim_faults_add(struct sim_faults *faults, const struct sim_fault *fault)
{
	struct sim_fault *f;

	if (faults->count == SIM_FAULTS_MAX)
		return -ENOSPC;
	f = &faults->fault[faults->count++];
	*f = *fault;
	f->matches = 0;
	f->strikes = 0;
	return 0;
}

static bool fault_matches(const struct sim_fault *f, uint64_t now_ns,
			  const struct sim_target *target)
{
	if (f->ops && !(f->ops & (1u << target->op)))
		return false;
	if (now_ns < f->from_ns || (f->until_ns && now_ns >= f->until_ns))
		return false;
	if (f->len_bytes && (target->off_bytes >= f->off_bytes + f->len_bytes ||
			     f->off_bytes >= target->off_bytes + target->len_bytes))
		return false;
	if (f->key_part[0] && (!target->key || !strstr(target->key, f->key_part)))
		return false;
	return true;
}

static bool fault_strikes(struct sim_fault *f, struct sim_world *world)
{
	f->matches++;
	if (f->times && f->strikes >= f->times)
		return false;
	if (f->nth ? f->matches < f->nth : sim_world_below(world, PPM) >= f->chance_ppm)
		return false;
	f->strikes++;
	return true;
}

struct sim_fault *sim_faults_strike(struct sim_faults *faults, struct sim_world *world,
				    const struct sim_target *target)
{
	struct sim_fault *hit = NULL;

	for (int i = 0; i < faults->count; i++) {
		struct sim_fault *f = &faults->fault[i];

		if (!fault_matches(f, world->clock_ns, target))
			continue;
		/* All that match go on counting, but one request suffers one fault. */
		if (hit)
			f->matches++;
		else if (fault_strikes(f, world))
			hit = f;
	}
	return hit;
}
