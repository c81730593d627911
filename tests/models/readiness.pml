/* The readiness of a server (zipnet/node/server.py, zipnet/observe/health.py): what it waits for.
 *
 * A server is ready when its storage takes writes, consensus has a leader and it has caught up, the
 * committee's keys are announced, and its own evidence passes. These depend on each other across
 * servers: keys are announced through the log, the log needs a majority, a link needs evidence, and
 * evidence needs nothing. The question is whether the graph has a knot: could all servers wait for
 * each other though nothing is broken any more?
 *
 * Promises: whenever enough servers are up and nothing is broken, everybody becomes ready (Thaw, as
 * a liveness property under fairness), and nobody is ready while a condition fails (Honest).
 *
 * Wrong designs that must be caught: -DLINKS_NEED_KEYS (a link waits for announced keys, which need
 * links: a knot), -DREADY_FOREVER (readiness is not taken back).
 */
#define SERVERS 3
#define MAJORITY 2
#define BREAKS 2

bool storage[SERVERS];  /* takes writes */
bool evidence[SERVERS]; /* its quote passes */
bool up[SERVERS];       /* process lives, and has links where evidence and (wrongly) keys allow */
bool linked[SERVERS];
bool caught_up[SERVERS];
bool announced[SERVERS];
bool ready[SERVERS];
byte breaks;
hidden byte n, j;

inline count_linked() {
  n = 0; j = 0;
  do :: j < SERVERS -> n = n + linked[j]; j++ :: else -> break od
}

#define HOLDS(s) (up[s] && storage[s] && evidence[s] && linked[s] && caught_up[s] && \
                  announced[0] && announced[1] && announced[2])
#ifdef LINKS_NEED_KEYS
#define MAY_LINK(s) (up[s] && evidence[s] && announced[s])
#else
#define MAY_LINK(s) (up[s] && evidence[s])
#endif

proctype Server(byte s) {
end:
  do
  :: d_step { MAY_LINK(s) && !linked[s] -> linked[s] = true }
  :: d_step { linked[s] && !MAY_LINK(s) -> linked[s] = false; caught_up[s] = false; ready[s] = false }
  :: d_step { linked[s] && !caught_up[s] -> count_linked();
      if :: n >= MAJORITY -> caught_up[s] = true :: else -> skip fi }
  :: d_step { caught_up[s] && storage[s] && !announced[s] -> announced[s] = true }
  :: d_step { HOLDS(s) && !ready[s] -> ready[s] = true }
#ifndef READY_FOREVER
  :: d_step { !HOLDS(s) && ready[s] -> ready[s] = false }
#endif
  od
}

/* Breaks things and mends them, a bounded number of times; in the end everything is mended. */
proctype World() {
  byte s;
  do
  :: breaks < BREAKS ->
    breaks++;
    select(s : 0 .. SERVERS - 1);
    if
    :: d_step { storage[s] = false; ready[s] = false }; storage[s] = true
    :: d_step { evidence[s] = false; ready[s] = false }; evidence[s] = true
    :: d_step { up[s] = false; linked[s] = false; caught_up[s] = false; ready[s] = false }; up[s] = true
#ifdef READY_FOREVER
    :: d_step { storage[s] = false }; assert(!ready[s]); storage[s] = true
#endif
    fi
  :: breaks >= BREAKS -> skip /* time goes on */
  od
}

init {
  byte s;
  atomic {
    for (s : 0 .. SERVERS - 1) { storage[s] = true; evidence[s] = true; up[s] = true }
    for (s : 0 .. SERVERS - 1) { run Server(s) }
    run World()
  }
}

ltl Thaw { <> [] (ready[0] && ready[1] && ready[2]) }
