# shellcheck shell=bash
# Starting, remembering and ending processes, for the scripts beside this file; source it.
#
# A process is remembered by its pid and its start time together, so that one which ended and
# whose pid was given to another program is never ended by mistake. Each line of the pids file is
# NAME PID START_TIME.

start_time() { # PID: in clock ticks since boot; fails if there is no such process or it is dead
  local stat
  stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
  stat=${stat##*) } # the name before it may hold spaces
  [ "${stat%% *}" != Z ] || return 1
  cut -d' ' -f20 <<<"$stat"
}

alive() { # PID START_TIME
  [ "$(start_time "$1" || true)" = "$2" ]
}

# Starts a program in a session of its own, so that Ctrl-C reaches this script alone and the
# clean-up happens in order. Its output goes to LOG.
start_process() { # PIDS-FILE NAME LOG PROGRAM ARGUMENT...
  local pids=$1 name=$2 log=$3 pid
  shift 3
  setsid "$@" >>"$log" 2>&1 </dev/null &
  pid=$!
  echo "$name $pid $(start_time "$pid")" >>"$pids"
}

process_alive() { # PIDS-FILE NAME
  local name pid start
  while read -r name pid start; do
    if [ "$name" = "$2" ] && alive "$pid" "$start"; then return 0; fi
  done < <(cat "$1" 2>/dev/null)
  return 1
}

# Asks each process of this name to end, and forces it after ten seconds.
end_process() { # PIDS-FILE NAME
  local name pid start tenths
  while read -r name pid start; do
    [ "$name" = "$2" ] || continue
    if alive "$pid" "$start"; then kill -TERM "$pid" 2>/dev/null || true; fi
    for ((tenths = 0; tenths < 100; tenths++)); do
      alive "$pid" "$start" || break
      sleep 0.1
    done
    if alive "$pid" "$start"; then kill -KILL "$pid" 2>/dev/null || true; fi
  done < <(cat "$1" 2>/dev/null)
}

# Waits until COMMAND succeeds, for as long as the process lives and the time is not up.
wait_until() { # SECONDS PIDS-FILE NAME COMMAND...
  local deadline=$((SECONDS + $1)) pids=$2 name=$3
  shift 3
  until "$@" >/dev/null 2>&1; do
    process_alive "$pids" "$name" || return 1
    [ "$SECONDS" -lt "$deadline" ] || return 1
    sleep 0.1
  done
}
