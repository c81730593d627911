/* A round as the committee runs it (protocol.md §6; zipnet/machines/{committee,server,guard}.py).
 *
 * The log is agreed (Raft); what is in it is not to be trusted: a malicious leader puts in openings,
 * choices and aborts of any kind, at any time. Servers apply it each at their own pace, may crash
 * and replay it from the start; their release journals survive. Partials are committed to first
 * (POST) and revealed once the whole roster has committed. Steps are named for the code: apply_next
 * = CommitteeMachine.apply, release = ReleaseGuard + PersistRelease + PostPartial, reveal =
 * SharePartial, sign = SignRecord.
 *
 * Promises: OnePartial, Minimum, NoFork (two servers never hold different records of a round),
 * AbortHides (of an aborted round not all partials are out), OnceCommitted (a message is in one
 * record at most: validated, sequenced, committed once), OneMask (never all partials of two sets).
 *
 * Wrong designs, each of which must be caught: -DREVEALS_EARLY (a partial leaves with its commitment), -DABORTS_LATE (an abort counts after all
 * have committed), -DNO_GUARD (the log is believed, the journal not kept).
 */
#ifndef SERVERS
#define SERVERS 2
#endif
#ifndef ROUNDS
#define ROUNDS 2
#endif
#ifndef LEADER
#define LEADER 5 /* entries the malicious leader may add */
#endif
#ifndef CRASHES
#define CRASHES 1
#endif
#define SETS 3
#define MINIMUM 2
#define ENTRIES (LEADER + SERVERS * ROUNDS * 2 + 2)
#ifdef ABORTS_LATE
#define MAY_ABORT(s) (phase[s] != IDLE)
#else
#define MAY_ABORT(s) (phase[s] == OPENED || phase[s] == CHOSEN)
#endif
#ifdef NO_GUARD
#define GUARD_AGREES(s) true
#else
#define GUARD_AGREES(s) (participants[choice[s]] >= MINIMUM && (current[s] > journal_round[s] || (current[s] == journal_round[s] && choice[s] == journal_set[s])))
#endif
#define EVERYBODY ((1 << SERVERS) - 1)
#define AT(s, r) ((s) * (ROUNDS + 1) + (r))

mtype = { OPEN, CHOOSE, ABORT, POST, SIGN };
mtype = { IDLE, OPENED, CHOSEN, REVEALED };

/* The agreed log. */
mtype log_kind[ENTRIES];
byte log_round[ENTRIES];
byte log_set[ENTRIES];
byte log_author[ENTRIES];
byte log_length;

/* Set 1 holds the message of client 1; so does set 2 with other company; set 3 is below the minimum. */
byte participants[SETS + 1];

/* What each server made of the log; index SERVERS is a reader who never crashes. */
byte position[SERVERS + 1];
byte current[SERVERS + 1];
mtype phase[SERVERS + 1];
byte choice[SERVERS + 1];
byte committed[SERVERS + 1];
byte endorsed[SERVERS + 1];
byte record[(SERVERS + 1) * (ROUNDS + 1)];

/* Durable, and what the world has seen. */
byte journal_round[SERVERS];
byte journal_set[SERVERS];
byte out[SERVERS * (ROUNDS + 1)];

/* Scratch, no part of any state. */
hidden byte i, k, y;
hidden byte b;

/* Client 1: whether its message is offered in a round, and how often it was committed. */
bool confirmed;
bool offered[ROUNDS + 1];
byte times_committed;


inline forget(s) {
  position[s] = 0; current[s] = 0; phase[s] = IDLE; choice[s] = 0; committed[s] = 0; endorsed[s] = 0
}

inline all_out(r, x, answer) {
  answer = true;
  i = 0;
  do
  :: i < SERVERS -> answer = answer && ((out[AT(i, r)] >> x) & 1); i++
  :: else -> break
  od
}

/* CommitteeMachine.apply: what is out of place changes nothing. */
inline apply_next(s) {
  k = position[s];
  position[s]++;
  if
  :: log_kind[k] == OPEN && phase[s] == IDLE && log_round[k] == current[s] + 1 ->
    current[s] = log_round[k]; phase[s] = OPENED; choice[s] = 0; committed[s] = 0; endorsed[s] = 0;
    if
    :: s == SERVERS && !confirmed -> offered[current[s]] = true /* the client sends again */
    :: else -> skip
    fi
  :: log_kind[k] == CHOOSE && log_round[k] == current[s] && phase[s] == OPENED ->
    choice[s] = log_set[k]; phase[s] = CHOSEN; committed[s] = 0
  :: log_kind[k] == POST && log_round[k] == current[s] && phase[s] == CHOSEN &&
     log_set[k] == choice[s] ->
    committed[s] = committed[s] | (1 << log_author[k]);
    if :: committed[s] == EVERYBODY -> phase[s] = REVEALED :: else -> skip fi
  :: log_kind[k] == SIGN && log_round[k] == current[s] && phase[s] == REVEALED &&
     log_set[k] == choice[s] ->
    endorsed[s] = endorsed[s] | (1 << log_author[k]);
    if
    :: endorsed[s] == EVERYBODY ->
      record[AT(s, current[s])] = choice[s];
      phase[s] = IDLE;
      i = 0;
      do
      :: i <= SERVERS ->
        assert(record[AT(i, current[s])] == 0 || record[AT(i, current[s])] == choice[s]); /* NoFork */
        i++
      :: else -> break
      od;
      if
      :: s == SERVERS && offered[current[s]] && choice[s] != 3 ->
        times_committed++;
        confirmed = true;
        assert(times_committed <= 1) /* OnceCommitted */
      :: else -> skip
      fi
    :: else -> skip
    fi
  :: log_kind[k] == ABORT && log_round[k] == current[s] && MAY_ABORT(s) ->
    phase[s] = IDLE;
    y = 1;
    do
    :: y <= SETS -> all_out(current[s], y, b); assert(!b); y++ /* AbortHides */
    :: else -> break
    od
  :: else -> skip
  fi;
}

/* One more committed entry; the reader is always up to date. */
inline add(kind, r, x, author) {
  log_kind[log_length] = kind; log_round[log_length] = r;
  log_set[log_length] = x; log_author[log_length] = author;
  log_length++;
  apply_next(SERVERS)
}

inline note_out(s, r, v) {
  out[AT(s, r)] = out[AT(s, r)] | (1 << v);
  assert(participants[v] >= MINIMUM); /* Minimum */
  assert((out[AT(s, r)] & (out[AT(s, r)] - 1)) == 0); /* OnePartial, and with it OneMask */
}

proctype Server(byte s) {
  byte crashes;
  bool proposed, proposed_signature;

  do
  /* apply */
  :: d_step {
      position[s] < log_length ->
      apply_next(s);
      if :: phase[s] == OPENED -> proposed = false; proposed_signature = false :: else -> skip fi
    }
  /* release: the guard, the durable write, then the commitment; a crash may come in between */
  :: d_step {
      phase[s] == CHOSEN && !proposed && !(committed[s] & (1 << s)) && GUARD_AGREES(s) ->
      journal_round[s] = current[s]; journal_set[s] = choice[s]; proposed = true
    }
    if
    :: crashes < CRASHES -> d_step { crashes++; forget(s); proposed = false; proposed_signature = false }
    :: d_step {
        log_length < ENTRIES && phase[s] == CHOSEN ->
        add(POST, current[s], choice[s], s);
#ifdef REVEALS_EARLY
        note_out(s, current[s], choice[s])
#endif
      }
    :: else -> skip
    fi
  /* reveal */
  :: d_step {
      phase[s] == REVEALED && out[AT(s, current[s])] == 0 ->
      note_out(s, current[s], choice[s])
    }
  /* sign */
  :: d_step {
      phase[s] == REVEALED && !proposed_signature && !(endorsed[s] & (1 << s)) && log_length < ENTRIES ->
      all_out(current[s], choice[s], b);
      if
      :: b -> add(SIGN, current[s], choice[s], s); proposed_signature = true
      :: else -> skip
      fi
    }
  /* crash: everything volatile is gone, the log is replayed */
  :: d_step {
      crashes < CRASHES ->
      crashes++; forget(s); proposed = false; proposed_signature = false
    }
  :: position[s] == log_length && log_length == ENTRIES -> break
  od
}

/* The worst of what a leader may add: everything else changes nothing (apply). */
proctype Leader() {
  byte added;
  do
  :: d_step { added < LEADER && log_length < ENTRIES && current[SERVERS] < ROUNDS ->
      added++; add(OPEN, current[SERVERS] + 1, 0, 0) }
  :: d_step { added < LEADER && log_length < ENTRIES -> added++; add(CHOOSE, current[SERVERS], 1, 0) }
  :: d_step { added < LEADER && log_length < ENTRIES -> added++; add(CHOOSE, current[SERVERS], 2, 0) }
  :: d_step { added < LEADER && log_length < ENTRIES -> added++; add(CHOOSE, current[SERVERS], 3, 0) }
  :: d_step { added < LEADER && log_length < ENTRIES -> added++; add(ABORT, current[SERVERS], 0, 0) }
  :: added >= LEADER || log_length >= ENTRIES -> break
  od
}

init {
  byte s;
  participants[1] = 3; participants[2] = 2; participants[3] = 1;
  atomic {
    for (s : 0 .. SERVERS) { phase[s] = IDLE }
    run Leader();
    for (s : 0 .. SERVERS - 1) { run Server(s) }
  }
}
