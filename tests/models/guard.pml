/* The release guard alone (protocol.md §6, §8.2, §8.3; zipnet/machines/guard.py).
 *
 * It believes nobody: any server may be told to unblind any set of any round at any time, as often
 * as anybody likes, and may crash between any two of its steps. The journal survives, the rest does
 * not. Steps are named for what they stand for: check = ReleaseGuard.check, persist = PersistRelease
 * made durable, send = SharePartial.
 *
 * Promises: OnePartial (one set per round and server, over all crashes), Minimum (no partial below
 * min_participants), Forward (rounds are never gone back to).
 *
 * Wrong guards, each of which must be caught: -DFORGETS (a restart does not read the journal),
 * -DSENDS_FIRST (the partial leaves before the journal is durable), -DNO_MINIMUM, -DGOES_BACK.
 */
#ifndef SERVERS
#define SERVERS 1 /* they share nothing */
#endif
#ifndef ROUNDS
#define ROUNDS 3
#endif
#define SETS 3
#define MINIMUM 2
#define ASKED 5 /* how often each server is asked */
#define CRASHES 3

#define AT(s, r) ((s) * (ROUNDS + 1) + (r))

byte participants[SETS + 1]; /* of set 1 … SETS */
byte journal_round[SERVERS]; /* durable: last release */
byte journal_set[SERVERS];
byte sent[SERVERS * (ROUNDS + 1)]; /* which sets ever left, as bits: seen from outside */
byte last_sent[SERVERS];

inline send_partial(s, r, x) {
  d_step {
    sent[AT(s, r)] = sent[AT(s, r)] | (1 << x);
    assert(participants[x] >= MINIMUM); /* Minimum */
    assert((sent[AT(s, r)] & (sent[AT(s, r)] - 1)) == 0); /* OnePartial */
    assert(r >= last_sent[s]); /* Forward */
    last_sent[s] = r
  }
}

proctype Server(byte s) {
  byte r, x, known_round, known_set, asked, crashes;

restart:
#ifdef FORGETS
  known_round = 0; known_set = 0;
#else
  known_round = journal_round[s]; known_set = journal_set[s];
#endif
  do
  :: asked < ASKED ->
    asked++;
    select(r : 1 .. ROUNDS);
    select(x : 1 .. SETS);
    /* check */
    if
#ifndef NO_MINIMUM
    :: participants[x] < MINIMUM -> goto refused
#endif
#ifndef GOES_BACK
    :: r < known_round -> goto refused
#endif
    :: r == known_round && x != known_set -> goto refused
    :: else -> skip
    fi;
#ifdef SENDS_FIRST
    send_partial(s, r, x);
    if :: crashes < CRASHES -> crashes++; goto restart :: skip fi;
#endif
    /* persist: one durable write */
    d_step { journal_round[s] = r; journal_set[s] = x };
    known_round = r; known_set = x;
    if :: crashes < CRASHES -> crashes++; goto restart :: skip fi;
    send_partial(s, r, x);
    if :: crashes < CRASHES -> crashes++; goto restart :: skip fi;
refused:
    skip
  :: asked >= ASKED -> break
  od
}

init {
  byte s;
  participants[1] = 3; participants[2] = 2; participants[3] = 1;
  atomic {
    for (s : 0 .. SERVERS - 1) { run Server(s) }
  }
}
