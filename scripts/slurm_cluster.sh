#!/usr/bin/env bash
# slurm_cluster.sh - a private, throw-away SLURM cluster on this one machine.
#
#   slurm_cluster.sh start            munged + slurmctld + N slurmd
#   slurm_cluster.sh stop             end the jobs and daemons, remove what we made in the directory
#   slurm_cluster.sh status           daemons, nodes, queue
#   slurm_cluster.sh env              shell code: eval "$(slurm_cluster.sh env)"
#   slurm_cluster.sh logs [lines]     tail of every log
# fault injection, for tests:
#   slurm_cluster.sh crash  <node>    kill -9 a slurmd with its job steps ("the node lost power")
#   slurm_cluster.sh freeze <node>    the same, but its jobs sleep (SIGSTOP) instead of ending: prints
#                                     their processes, which whoever asked for it wakes or ends
#   slurm_cluster.sh revive <node>    start that slurmd again
#   slurm_cluster.sh forget           a controller that lost its state: ids of jobs begin again
#   slurm_cluster.sh ctld-down|ctld-up|ctld-restart     the controller
#
# Everything lives in $SLURM_CLUSTER_DIR: configuration, key, sockets, spool, state, logs,
# pid files. Nothing in /etc, /run or /var is read or written, no systemd, no cgroups; root
# or an ordinary user (then jobs of that user only). Clients find the cluster by SLURM_CONF.
#
# A process is ended only when it is provably ours: a daemon's pid file holds "pid start-time",
# and the start time must still match /proc; a job step has our slurmd's private log file open
# (the rest of a job descends from its step).
#
# Settings (environment): SLURM_CLUSTER_DIR, _NODES (3), _CPUS per node (2), _MEM MB per node
# (4000), _GPUS fake GPUs per node (2), _PORT first port (0 = from the directory's hash),
# _EXTRA lines appended to slurm.conf (a later line wins: MaxArraySize=5), _KEEP=1 (stop leaves
# the logs). There is no slurmdbd: `sacct` is a stand-in that asks squeue.
set -uo pipefail

self=$(readlink -f "${BASH_SOURCE[0]}")
PATH=$PATH:/usr/sbin:/sbin
DIR=${SLURM_CLUSTER_DIR:-${TMPDIR:-/tmp}/slurm-cluster-$(id -u)}
NODES=${SLURM_CLUSTER_NODES:-3}
CPUS=${SLURM_CLUSTER_CPUS:-2}
MEM=${SLURM_CLUSTER_MEM:-4000}
GPUS=${SLURM_CLUSTER_GPUS:-2}
EXTRA=${SLURM_CLUSTER_EXTRA:-}

die()  { echo "slurm_cluster: $*" >&2; exit 1; }
note() { echo "slurm_cluster: $*"; }

[[ ${1:-} != start ]] || mkdir -p "$DIR" || die "cannot make $DIR"
DIR=$(readlink -m "$DIR")
(( ${#DIR} <= 70 )) || die "$DIR is too long for a unix socket; set SLURM_CLUSTER_DIR"
reachable() {                                # munged wants every folder above its socket open
    local d=$DIR
    while d=${d%/*}; [[ -n $d ]]; do
        [[ $(stat -c %A "$d") == *[xts] ]] ||
            die "$d must be open to all (chmod a+x), or set SLURM_CLUSTER_DIR"
    done
}
export SLURM_CONF=$DIR/slurm.conf
PORT=${SLURM_CLUSTER_PORT:-0}
(( PORT )) || PORT=$(( 20000 + $(printf %s "$DIR" | cksum | cut -d' ' -f1) % 9000 ))

# ---------------------------------------------------------------- processes we own
started() {                                  # '' if there is none, or a zombie
    sed 's/^.*) //; /^Z/d' "/proc/$1/stat" 2>/dev/null | cut -d' ' -f20
}

alive() {                                    # alive NAME -> its pid, if it is still that process
    local pid since
    read -r pid since 2>/dev/null <"$DIR/pid/$1" || return 1
    [[ -n $since && $(started "$pid") == "$since" ]] && echo "$pid"
}

launch() {                                   # launch NAME command... (foreground program)
    local name=$1; shift
    alive "$name" >/dev/null && return 0
    setsid "$@" </dev/null >>"$DIR/log/$name.out" 2>&1 9>&- &
    echo "$! $(started $!)" >"$DIR/pid/$name"
}

end() {                                      # end NAME SIGNAL [seconds before KILL]
    local pid i; pid=$(alive "$1") || { rm -f "$DIR/pid/$1"; return 0; }
    kill "-$2" "$pid" 2>/dev/null
    for (( i = 0; i < ${3:-5} * 10; i++ )); do alive "$1" >/dev/null || break; sleep .1; done
    alive "$1" >/dev/null && kill -KILL "$pid" 2>/dev/null
    rm -f "$DIR/pid/$1"
}

steps_of() {                                 # pids of the slurmstepd of NODE ('' = of all)
    local p name
    for p in /proc/[0-9]*; do                # no process is started for each of them: it is urgent
        { read -r name <"$p/comm"; } 2>/dev/null && [[ $name == slurmstepd ]] || continue
        grep -qx "$DIR/log/slurmd-${1:-.*}.log" < <(readlink "$p"/fd/* 2>/dev/null) &&
            echo "${p#/proc/}"
    done
}

tree() {                                     # a pid and all that descends from it
    local kid
    echo "$1"
    for kid in $(cat "/proc/$1/task/"*/children 2>/dev/null); do tree "$kid"; done
}

kill_steps() {                               # and with them, in the same instant, the pids given
    local s all=("${@:2}")
    for s in $(steps_of "${1:-}"); do
        kill -STOP "$s" 2>/dev/null          # so that it neither reports nor forks meanwhile
        mapfile -t -O "${#all[@]}" all < <(tree "$s")
    done
    (( ${#all[@]} )) && kill -KILL "${all[@]}" 2>/dev/null
    return 0
}

freeze_steps() {                             # NODE and its slurmd: what is left of its steps sleeps
    local s steps=("${@:2}") all=()
    for s in $(steps_of "$1"); do
        kill -STOP "$s" 2>/dev/null
        steps+=("$s")
        mapfile -t -O "${#all[@]}" all < <(tree "$s" | tail -n +2)
    done
    (( ${#all[@]} )) && kill -STOP "${all[@]}" 2>/dev/null
    (( ${#steps[@]} )) && kill -KILL "${steps[@]}" 2>/dev/null
    (( ${#all[@]} )) && echo "${all[@]}"
    return 0
}

wait_for() {                                 # wait_for SECONDS NAME-OF-ITS-PROCESS command...
    local end=$(( SECONDS + $1 )) name=$2 said; shift 2
    until said=$("$@" 2>&1); do
        if (( SECONDS >= end )); then
            echo "slurm_cluster: $name does not answer: $said" >&2; return 1
        elif [[ -e $DIR/pid/$name ]] && ! alive "$name" >/dev/null; then
            echo "slurm_cluster: $name died" >&2; return 1
        fi
        sleep .1
    done
}

# ---------------------------------------------------------------- configuration
node_names() { sed -n 's/^NodeName=\([^ ]*\).*/\1/p' "$SLURM_CONF"; }

configure() {
    local host me i by_signal= preempt= cgroup=disabled; host=$(hostname -s); me=$(id -un)
    if (( VERSION < 2302 )); then by_signal=,preempt_send_user_signal
    else preempt=PreemptParameters=send_user_signal; fi
    mkdir -p "$DIR"/{bin,log,pid,state,spool,munge,dev} || die "cannot write $DIR"
    chmod 755 "$DIR" "$DIR/munge"
    ( umask 077; head -c 128 /dev/urandom >"$DIR/munge/key" )
    # a fake GPU: slurmd wants a device file whose name ends in its number, nobody opens it
    for (( i = 0; i < GPUS; i++ )); do ln -sfn /dev/null "$DIR/dev/gpu$i"; done

    cat >"$SLURM_CONF" <<CONF
ClusterName=sandbox
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$PORT
SlurmUser=$me
SlurmdUser=$me
AuthType=auth/munge
# a requeued job waits for its old credential to expire (120 s by default): make that short
AuthInfo=socket=$DIR/munge/socket,cred_expire=5
CredType=cred/munge
MpiDefault=none
MailProg=/bin/true
# no cgroups, no binding: these work in any sandbox
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SlurmdParameters=config_overrides
SlurmctldPidFile=$DIR/spool/slurmctld.pid
SlurmdPidFile=$DIR/spool/slurmd-%n.pid
StateSaveLocation=$DIR/state
SlurmdSpoolDir=$DIR/spool/%n
SlurmctldLogFile=$DIR/log/slurmctld.log
SlurmdLogFile=$DIR/log/slurmd-%n.log
SlurmctldDebug=info
SlurmdDebug=info
# quick reactions, so that tests need not wait
SlurmctldTimeout=10
SlurmdTimeout=10
MessageTimeout=10
KillWait=3
CompleteWait=0
InactiveLimit=0
MinJobAge=3600
ReturnToService=2
UnkillableStepTimeout=15
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0$by_signal
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=500
MaxArraySize=1001
JobRequeue=1
JobCompType=jobcomp/filetxt
JobCompLoc=$DIR/log/jobcomp.txt
# jobs of "low" give way to jobs of "main": SIGCONT and SIGTERM to the steps, 10 s, requeue
# (22.05.8 sent no --signal signal then, although asked to)
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
$preempt
GresTypes=gpu
CONF
    for (( i = 1; i <= NODES; i++ )); do
        echo "NodeName=n$i NodeHostname=$host NodeAddr=127.0.0.1 Port=$(( PORT + 10 + i ))" \
             "CPUs=$CPUS Sockets=1 CoresPerSocket=$CPUS ThreadsPerCore=1 RealMemory=$MEM" \
             "$( (( GPUS )) && echo "Gres=gpu:$GPUS") State=UNKNOWN"
    done >>"$SLURM_CONF"
    cat >>"$SLURM_CONF" <<CONF
PartitionName=DEFAULT Nodes=ALL MaxTime=INFINITE DefaultTime=60
PartitionName=main Default=YES PriorityTier=10 PreemptMode=OFF
PartitionName=low  Default=NO  PriorityTier=1  PreemptMode=REQUEUE GraceTime=10
$EXTRA
CONF
    (( GPUS == 0 )) ||
        echo "NodeName=n[1-$NODES] Name=gpu File=$DIR/dev/gpu[0-$(( GPUS - 1 ))]" >"$DIR/gres.conf"
    # read by every slurmd, used by none of our plugins
    (( VERSION < 2311 )) && cgroup=cgroup/v1
    echo "CgroupPlugin=$cgroup" >"$DIR/cgroup.conf"

    # Without slurmdbd there is no sacct, and submitit never learns that a job died. This
    # stand-in answers the questions submitit asks from the controller's memory (MinJobAge).
    cat >"$DIR/bin/sacct" <<'SHIM' && chmod 755 "$DIR/bin/sacct"
#!/usr/bin/env bash
# sacct -o JobID,State,NodeList --parsable2 -j ID [-j ID]...   (a subset, through squeue)
ids=()
while (( $# )); do case $1 in -j|--jobs) ids+=("$2"); shift;; esac; shift; done
echo "JobID|State|NodeList"
squeue --noheader --array --states=all -o '%i|%T|%N' ${ids[@]+--jobs="$(IFS=,; echo "${ids[*]}")"}
SHIM
    cat >"$DIR/env.sh" <<ENV
export SLURM_CONF=$SLURM_CONF PATH=$DIR/bin:\$PATH
ENV
}

ports_free() {
    local p
    for p in "$PORT" $(seq $(( PORT + 11 )) $(( PORT + 10 + NODES ))); do
        (exec 3<>"/dev/tcp/127.0.0.1/$p") 2>/dev/null || continue
        echo "port $p is taken" >&2; return 1
    done
}

# ---------------------------------------------------------------- daemons
start_munged() {
    launch munged munged --foreground --socket="$DIR/munge/socket" --key-file="$DIR/munge/key" \
        --pid-file="$DIR/munge/pid" --log-file="$DIR/log/munged.log" \
        --seed-file="$DIR/munge/seed" --num-threads=2
    wait_for 10 munged munge --socket "$DIR/munge/socket" --no-input
}
ctld_up() { scontrol ping | grep -q 'is UP'; }
start_ctld() { launch slurmctld slurmctld -D "$@"; wait_for 20 slurmctld ctld_up; }
start_node() { launch "slurmd-$1" slurmd -D -N "$1"; }
nodes_ready() {
    [[ $(sinfo --noheader --Node --partition=main --states=idle,mixed,alloc -o %N | sort -u) == \
        "$(node_names | sort)" ]]
}
is_up() { alive slurmctld >/dev/null && alive munged >/dev/null; }

do_start() {
    local t0 n; t0=$(date +%s%N)
    is_up && { note "already running in $DIR"; return 0; }
    [[ ! -e $DIR/pid ]] || do_stop quiet                       # what a crash left
    for n in munged munge slurmctld slurmd sbatch; do
        command -v $n >/dev/null || die "$n is not installed (Debian: apt install slurm-wlm munge)"
    done
    reachable
    VERSION=$(slurmctld -V | sed 's/[^0-9]*\([0-9]*\)\.\([0-9]*\).*/\1\2/')      # 22.05.8 -> 2205
    ports_free || die "set SLURM_CLUSTER_PORT"
    configure
    { start_munged && start_ctld -i && for n in $(node_names); do start_node "$n"; done &&
        wait_for 20 "nodes idle" nodes_ready; } || { tail -n 20 "$DIR"/log/* >&2; do_stop; exit 1; }
    note "up in $(( ($(date +%s%N) - t0) / 1000000 )) ms: $NODES nodes; eval \"\$($self env)\""
}

do_stop() {
    local f
    [[ -d $DIR/pid ]] || { [[ ${1:-} == quiet ]] || note "nothing to stop in $DIR"; return 0; }
    end slurmctld TERM                       # first, so that nothing new is launched
    kill_steps
    for f in "$DIR"/pid/slurmd-*; do [[ -e $f ]] && end "$(basename "$f")" TERM 2; done
    kill_steps                               # one that was just starting
    end munged TERM
    if [[ -n ${SLURM_CLUSTER_KEEP:-} ]]; then rm -rf "$DIR"/{pid,munge,spool}
    else rm -rf "${DIR:?}"/{bin,log,pid,state,spool,munge,dev,env.sh,.lock} "$DIR"/*.conf
         rmdir "$DIR" 2>/dev/null; fi
    [[ ${1:-} == quiet ]] || note "stopped"
}

do_status() {
    local f
    [[ -d $DIR/pid ]] || { echo "not running ($DIR)"; return 3; }
    for f in "$DIR"/pid/*; do
        f=$(basename "$f"); printf '%-12s %s\n' "$f" "$(alive "$f" || echo dead)"
    done
    is_up || return 3
    timeout 10 sinfo --Node -o '%N %P %T %C %m %G' && timeout 10 squeue --all
}

load() { [[ -d $DIR/pid ]] || die "not running ($DIR)"; }
known() { node_names | grep -qx "${1:-}" || die "which node? $(node_names | tr '\n' ' ')"; }

if [[ -d $DIR ]]; then                       # one at a time
    exec 9>"$DIR/.lock" && flock -w 60 9 || die "another slurm_cluster.sh is at work in $DIR"
fi
case ${1:-} in
    start)  do_start ;;
    stop)   do_stop ;;
    status) do_status ;;
    env)    [[ -e $DIR/env.sh ]] || die "not running ($DIR)"; cat "$DIR/env.sh" ;;
    logs)   tail -n "${2:-20}" "$DIR"/log/* ;;
    # all at once: a job that outlived its slurmd by seconds would still run when it begins elsewhere
    crash)  load; known "${2:-}"; kill_steps "$2" $(alive "slurmd-$2"); end "slurmd-$2" KILL ;;
    freeze) load; known "${2:-}"; freeze_steps "$2" $(alive "slurmd-$2"); end "slurmd-$2" KILL ;;
    revive) load; known "${2:-}"; start_node "$2"; wait_for 20 "$2" nodes_ready ;;
    ctld-down)    load; end slurmctld TERM ;;
    ctld-up)      load; start_ctld ;;
    forget)       load; end slurmctld KILL; rm -rf "${DIR:?}"/state/*; start_ctld -i ;;
    ctld-restart) load; end slurmctld TERM; start_ctld ;;
    *) sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "$self"; exit 2 ;;
esac
