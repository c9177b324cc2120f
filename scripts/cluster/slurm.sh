#!/usr/bin/env bash
# Trains the quickstart model under Slurm on this one machine: a job of four processes is first
# stopped by a signal, then loses a process, requeues itself both times, and continues to the
# end.
#
# usage: scripts/cluster/slurm.sh [SAMBATRAIN]
#
# Without SAMBATRAIN it builds the program. It needs root on Debian, installs missing packages,
# and starts daemons with their own ports, key and state folder, which it stops at the end.
set -euo pipefail
cd "$(dirname "$0")/../.."

fail() {
	echo "slurm.sh: $*" >&2
	tail -n 20 "$work"/*.log "$work"/*.out >&2 2>/dev/null || true
	exit 1
}

# until_true SECONDS WHAT COMMAND... waits for a command to succeed.
until_true() {
	local end=$((SECONDS + $1)) what=$2
	shift 2
	until "$@"; do
		[ $SECONDS -lt $end ] || fail "waited in vain for $what"
		sleep 0.2
	done
}

daemons=()
start() {
	local name=$1
	shift
	"$@" >"$work/$name.log" 2>&1 &
	daemons+=($!)
}

finish() {
	local code=$?
	trap - EXIT
	if [ "$code" != 0 ] && [ -n "${job:-}" ]; then
		timeout 10 scancel --full --signal=KILL "$job" || true
		sleep 1
	fi
	# Stops them in reverse order of their start.
	for ((i = ${#daemons[@]} - 1; i >= 0; i--)); do
		kill "${daemons[i]}" 2>/dev/null || true
		wait "${daemons[i]}" 2>/dev/null || true
	done
	rm -rf "$work"
	exit "$code"
}

[ "$(id -u)" = 0 ] || { echo "slurm.sh: must be root, to start Slurm's daemons" >&2; exit 1; }
work=$(mktemp -d)
chmod 755 "$work" # munged wants its socket reachable
trap finish EXIT

missing=""
for pair in slurmd:slurmd slurmctld:slurmctld srun:slurm-client munged:munge mpirun:openmpi-bin; do
	command -v "${pair%:*}" >/dev/null || missing="$missing ${pair#*:}"
done
# Debian's srun --mpi=pmix opens libpmix.so, a file name that only this package provides.
dpkg-query --show libpmix-dev >/dev/null 2>&1 || missing="$missing libpmix-dev"
if [ -n "$missing" ]; then
	apt-get update -qq
	DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
fi

mkdir "$work/bin" "$work/state" "$work/spool"
if [ $# -gt 0 ]; then
	cp "$1" "$work/bin/sambatrain"
else
	CGO_ENABLED=0 go build -o "$work/bin/sambatrain" ./cmd/sambatrain
fi
export PATH="$work/bin:$PATH"

host=$(hostname -s)
port=$((30000 + RANDOM % 1000 * 2)) # below the ports that the kernel gives away
cat >"$work/slurm.conf" <<END
ClusterName=onenode
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$port
SlurmdPort=$((port + 1))
SlurmUser=root
MailProg=/bin/true
AuthType=auth/munge
# A requeued job waits until its old credentials have expired.
AuthInfo=socket=$work/munge.socket,cred_expire=5
StateSaveLocation=$work/state
SlurmdSpoolDir=$work/spool
SlurmctldPidFile=$work/slurmctld.pid
SlurmdPidFile=$work/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=sched_interval=2
SlurmdParameters=config_overrides
ReturnToService=2
NodeName=$host NodeAddr=127.0.0.1 CPUs=4 State=UNKNOWN
PartitionName=all Nodes=$host Default=YES State=UP
END
export SLURM_CONF="$work/slurm.conf"

(umask 077 && head -c 128 /dev/urandom >"$work/munge.key")
start munged munged --foreground --force --num-threads=2 --key-file="$work/munge.key" --socket="$work/munge.socket" \
	--pid-file="$work/munged.pid" --log-file="$work/munged.log" --seed-file="$work/munged.seed"
until_true 10 munged test -S "$work/munge.socket"
start slurmctld slurmctld -D
start slurmd slurmd -D
node_is() { [ "$(sinfo --noheader --format=%T 2>/dev/null)" = "$1" ]; }
until_true 20 "an idle node" node_is idle

run="$work/run" out="$work/job.out"
touch "$out"
last_step() { grep -o '^step *[0-9]*/[0-9]*  loss' "$out" | tail -n 1 | grep -o '[0-9]*' | head -n 1; }
printed() { grep -q "$1" "$out"; }
job_is() { [ "$(squeue --noheader --job="$job" --states=all --format=%T 2>/dev/null)" = "$1" ]; }
same() { [ "$2" = "$3" ] || fail "$1 is $2, want $3"; }

# Slurm's processes run as root here, which Open MPI only accepts with this setting.
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
steps=30
job=$(sbatch --parsable --output="$out" --ntasks-per-node=4 scripts/cluster/train.sbatch recipes/quickstart.yaml "$run" --steps $steps --set run.log_every=1 \
	--set 'data.text.path=$GOROOT/src/encoding' --set "data.shards=$work/shards" --set eval.rows=4 --set run.threads=1 \
	--set run.shard=optimizer --set checkpoint.every=10 --set run.timeout=30s)
until_true 60 "the job's fifth step" printed "^step *5/$steps  loss"
scancel --signal=USR1 "$job"
until_true 30 "the job to stop and save" printed 'stopped after step'
stopped=$(grep -o 'stopped after step [0-9]*' "$out" | sort -u | grep -o '[0-9]*')
same "the last step on record" "$(last_step)" "$stopped" # all processes name one step
until_true 30 "exit code 75, with which the job requeues itself" job_is PENDING
until_true 60 "the requeued job's checkpoint of step 10" test -d "$run/checkpoints/step-00000010"
kill -KILL "$(pgrep --newest --full "^$work/bin/sambatrain pretrain")"
until_true 30 "the others to notice" printed 'is lost: it ended without a word'
until_true 30 "the job to requeue itself again" job_is PENDING
until_true 60 "the job's end" job_is COMPLETED
same "the last step" "$(last_step)" $steps
same "the last checkpoint" "$(ls "$run/checkpoints" | tail -n 1)" "$(printf 'step-%08d' $steps)"
test -s "$run/result.json" || fail "the run has no result"
echo "Slurm $(sinfo --version | cut -d' ' -f2): four processes stopped behind step $stopped, requeued, one was killed, requeued, done after step $(last_step)"
