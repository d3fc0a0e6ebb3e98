/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Intrusive doubly linked circular lists.
 *
 * A list is a struct list that points at itself when empty; a member embeds a struct list.
 * A member that is on no list is either unset or self-linked (list_init, list_del).
 */
#ifndef VARVE_BASE_LIST_H
#define VARVE_BASE_LIST_H

#include <stdbool.h>
#include <stddef.h>

struct list {
	struct list *prev, *next;
};

#define LIST_INIT(name) { &(name), &(name) }

#ifndef container_of
#define container_of(ptr, type, member) ((type *)((char *)(ptr) - offsetof(type, member)))
#endif

static inline void list_init(struct list *l)
{
	l->prev = l;
	l->next = l;
}

static inline bool list_empty(const struct list *l)
{
	return l->next == l;
}

static inline void list_insert_between(struct list *n, struct list *prev, struct list *next)
{
	n->prev = prev;
	n->next = next;
	prev->next = n;
	next->prev = n;
}

/* Adds @n as the first member of @l; with a member for @l, right behind that member. */
static inline void list_add(struct list *l, struct list *n)
{
	list_insert_between(n, l, l->next);
}

/* Adds @n as the last member of @l; with a member for @l, right before that member. */
static inline void list_add_tail(struct list *l, struct list *n)
{
	list_insert_between(n, l->prev, l);
}

/* Takes @n off its list and self-links it: deleting it again is harmless. */
static inline void list_del(struct list *n)
{
	n->prev->next = n->next;
	n->next->prev = n->prev;
	list_init(n);
}

static inline struct list *list_first(const struct list *l)
{
	return list_empty(l) ? NULL : l->next;
}

static inline struct list *list_last(const struct list *l)
{
	return list_empty(l) ? NULL : l->prev;
}

/* Takes the first member off, or returns NULL. */
static inline struct list *list_pop(struct list *l)
{
	struct list *n = list_first(l);

	if (n)
		list_del(n);
	return n;
}

/* Moves all members of @from to the tail of @l, in order; @from is empty afterwards. */
static inline void list_splice_tail(struct list *l, struct list *from)
{
	if (list_empty(from))
		return;
	from->next->prev = l->prev;
	l->prev->next = from->next;
	from->prev->next = l;
	l->prev = from->prev;
	list_init(from);
}

/* Moves all members of @from to the head of @l, in order; @from is empty afterwards. */
static inline void list_splice(struct list *l, struct list *from)
{
	list_splice_tail(l->next, from);
}

static inline size_t list_count(const struct list *l)
{
	const struct list *n;
	size_t count = 0;

	for (n = l->next; n != l; n = n->next)
		count++;
	return count;
}

#define list_entry(ptr, type, member) container_of(ptr, type, member)
#define list_first_entry(l, type, member) list_entry((l)->next, type, member)
#define list_last_entry(l, type, member) list_entry((l)->prev, type, member)

/* @pos is a struct list *; the body must not take @pos off the list (see the _safe form). */
#define list_for_each(pos, l) for ((pos) = (l)->next; (pos) != (l); (pos) = (pos)->next)

#define list_for_each_safe(pos, tmp, l)                                                            \
	for ((pos) = (l)->next, (tmp) = (pos)->next; (pos) != (l);                                 \
	     (pos) = (tmp), (tmp) = (pos)->next)

/* @pos is a pointer to the type that embeds @member. */
#define list_for_each_entry(pos, l, type, member)                                                  \
	for ((pos) = list_entry((l)->next, type, member); &(pos)->member != (l);                   \
	     (pos) = list_entry((pos)->member.next, type, member))

#define list_for_each_entry_safe(pos, tmp, l, type, member)                                        \
	for ((pos) = list_entry((l)->next, type, member),                                          \
	    (tmp) = list_entry((pos)->member.next, type, member);                                  \
	     &(pos)->member != (l);                                                                \
	     (pos) = (tmp), (tmp) = list_entry((tmp)->member.next, type, member))

#endif
