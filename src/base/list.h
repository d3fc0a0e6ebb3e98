/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Intrusive doubly linked circular lists.
 *
 * A list is a struct list_head that points at itself when empty; a member embeds one.  Arguments
 * come in the kernel's order: the member (or the list that is moved) first, the list last.
 * A member that is on no list is either unset or self-linked (list_init, list_del).
 */
#ifndef BASE_LIST_H
#define BASE_LIST_H

#include <stdbool.h>
#include <stddef.h>

struct list_head {
	struct list_head *prev, *next;
};

#define LIST_INIT(name)          \
	{                        \
		&(name), &(name) \
	}

#ifndef container_of
#define container_of(ptr, type, member) ((type *)((char *)(ptr)-offsetof(type, member)))
#endif

static inline void list_init(struct list_head *l)
{
	l->prev = l;
	l->next = l;
}

static inline bool list_empty(const struct list_head *l)
{
	return l->next == l;
}

static inline void list_insert_between(struct list_head *n, struct list_head *prev,
				       struct list_head *next)
{
	n->prev = prev;
	n->next = next;
	prev->next = n;
	next->prev = n;
}

/* Adds @n as the first member of @l; with a member for @l, right behind that member. */
static inline void list_add(struct list_head *n, struct list_head *l)
{
	list_insert_between(n, l, l->next);
}

/* Adds @n as the last member of @l; with a member for @l, right before that member. */
static inline void list_add_tail(struct list_head *n, struct list_head *l)
{
	list_insert_between(n, l->prev, l);
}

/* Takes @n off its list and self-links it: deleting it again is harmless. */
static inline void list_del(struct list_head *n)
{
	n->prev->next = n->next;
	n->next->prev = n->prev;
	list_init(n);
}

static inline struct list_head *list_first(const struct list_head *l)
{
	return list_empty(l) ? NULL : l->next;
}

static inline struct list_head *list_last(const struct list_head *l)
{
	return list_empty(l) ? NULL : l->prev;
}

/* Takes the first member off, or returns NULL. */
static inline struct list_head *list_pop(struct list_head *l)
{
	struct list_head *n = list_first(l);

	if (n)
		list_del(n);
	return n;
}

/* Moves all members of @from to the tail of @l, in order; @from is empty afterwards. */
static inline void list_splice_tail(struct list_head *from, struct list_head *l)
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
static inline void list_splice(struct list_head *from, struct list_head *l)
{
	list_splice_tail(from, l->next);
}

static inline size_t list_count(const struct list_head *l)
{
	const struct list_head *n;
	size_t count = 0;

	for (n = l->next; n != l; n = n->next)
		count++;
	return count;
}

#define list_entry(ptr, type, member) container_of(ptr, type, member)
#define list_first_entry(l, type, member) list_entry((l)->next, type, member)
#define list_last_entry(l, type, member) list_entry((l)->prev, type, member)

/* @pos is a struct list_head *; the body must not take @pos off the list (see the _safe form). */
#define list_for_each(pos, l) for ((pos) = (l)->next; (pos) != (l); (pos) = (pos)->next)

#define list_for_each_safe(pos, tmp, l)                            \
	for ((pos) = (l)->next, (tmp) = (pos)->next; (pos) != (l); \
	     (pos) = (tmp), (tmp) = (pos)->next)

/* @pos is a pointer to the type that embeds @member. */
#define list_for_each_entry(pos, l, type, member)                                \
	for ((pos) = list_entry((l)->next, type, member); &(pos)->member != (l); \
	     (pos) = list_entry((pos)->member.next, type, member))

#define list_for_each_entry_safe(pos, tmp, l, type, member)       \
	for ((pos) = list_entry((l)->next, type, member),         \
	    (tmp) = list_entry((pos)->member.next, type, member); \
	     &(pos)->member != (l);                               \
	     (pos) = (tmp), (tmp) = list_entry((tmp)->member.next, type, member))

#endif
