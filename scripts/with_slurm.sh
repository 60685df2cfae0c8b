#!/usr/bin/env bash
# Run a command beside a Slurm cluster of one node, this machine, which ends with it. As root, on Debian after
# `apt-get install slurm-wlm munge`. Usage: scripts/with_slurm.sh COMMAND [ARGUMENTS].
set -euo pipefail
for program in munged slurmctld slurmd; do
    if ! PATH=$PATH:/usr/sbin command -v "$program" >/dev/null; then
        echo "error: $program is not installed: apt-get install slurm-wlm munge" >&2
        exit 2
    fi
done
export PATH=$PATH:/usr/sbin

folder=$(mktemp -d)
chmod 755 "$folder"
pids=()
stop() {
    # The processes of a job outlive the daemons.
    scancel --user "$(id -un)" && sleep 2
    scancel --user "$(id -un)" --signal=KILL --full && sleep 1
    kill "${pids[@]}" 2>/dev/null || true
    wait
    # A killed step leaves one behind, which waits for a daemon that is gone.
    for process in $(pgrep -x slurmstepd); do
        if tr '\0' '\n' <"/proc/$process/environ" | grep -q "^SLURM_CONF=$folder/"; then
            kill -KILL "$process"
        fi
    done
    rm -rf "$folder"
}
trap stop EXIT

# Of its own, so that a munged of this machine is left alone.
(umask 077 && head -c 1024 /dev/urandom >"$folder/munge.key")
munged --foreground --force --socket "$folder/munge.socket" --key-file "$folder/munge.key" \
    --pid-file "$folder/munged.pid" --log-file "$folder/munged.log" --seed-file "$folder/munged.seed" 2>"$folder/munged.out" &
pids+=($!)

node=$(hostname)
export SLURM_CONF=$folder/slurm.conf
mkdir "$folder/state" "$folder/spool"
# `high` preempts `low`, whose jobs then have ten seconds to save.
cat >"$SLURM_CONF" <<END
ClusterName=here
SlurmctldHost=$node(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$folder/munge.socket
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
SlurmctldPort=26817
SlurmdPort=26818
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=bf_interval=2
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
KillWait=20
NodeName=$node NodeAddr=127.0.0.1 CPUs=$(nproc) State=UNKNOWN
PartitionName=low Nodes=$node Default=YES MaxTime=INFINITE State=UP PriorityTier=1 GraceTime=10
PartitionName=high Nodes=$node MaxTime=INFINITE State=UP PriorityTier=2 PreemptMode=OFF
END
for _ in $(seq 100); do
    [ -S "$folder/munge.socket" ] && break
    sleep 0.1
done
slurmctld -D -c 2>"$folder/slurmctld.out" &
pids+=($!)
slurmd -D 2>"$folder/slurmd.out" &
pids+=($!)
for _ in $(seq 100); do
    sinfo --noheader --format=%T 2>/dev/null | grep -q idle && break
    sleep 0.2
done
sinfo
"$@"
