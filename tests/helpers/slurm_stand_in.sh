#!/usr/bin/env bash
# The commands of Slurm that launchers.Slurm and submitit use, on this machine, without its daemons: a link to this file
# is called sbatch, srun, squeue, scancel or scontrol. $STAND_IN_QUEUE is a folder: NAME.queued for each job that has not
# ended, NAME.step with the group of its running step, ID.sh with what was submitted, `environment` with that of sbatch.
# As long as there is a file `refuse`, sbatch refuses all jobs, and leaves a file `refused`.
set -u
queue=$STAND_IN_QUEUE
case ${0##*/} in
sbatch)
    if [ -e "$queue/refuse" ]; then
        touch "$queue/refused"
        echo "sbatch: error: invalid partition specified" >&2
        exit 1
    fi
    id=$(($(cat "$queue/last" 2>/dev/null || echo 0) + 1))
    echo "$id" >"$queue/last"
    cp "$1" "$queue/$id.sh"
    env >"$queue/environment"
    array=$(sed -n 's/^#SBATCH --array=0-\([0-9]*\)%\([0-9]*\)$/\1 \2/p' "$1")
    read -r last at_once <<<"${array:-0 1}"
    for index in $(seq 0 "$last"); do
        name=$id
        [ -z "$array" ] || name=${id}_$index
        touch "$queue/$name.queued"
        echo "$name"
    done >"$queue/$id.names"
    setsid bash "$(readlink -f "$0")" array "$id" "$at_once" >/dev/null 2>&1 </dev/null &
    echo "Submitted batch job $id"
    ;;
srun)
    while [[ $1 == --* ]]; do
        if [ "$1" = --output ]; then
            output=$2
            shift
        fi
        shift
    done
    output=${output//%A_%a/$STAND_IN_NAME}
    output=${output//%j/$STAND_IN_NAME}
    setsid "$@" >>"${output//%t/0}" 2>&1 &
    echo $! >"$queue/$STAND_IN_NAME.step"
    wait $!
    ;;
squeue)
    for path in "$queue"/*.queued; do
        [ ! -e "$path" ] || basename "$path" .queued
    done
    ;;
scancel)
    # As in Slurm, each process of the step gets the signal.
    if [ -e "$queue/$1.step" ]; then
        kill -TERM -- "-$(cat "$queue/$1.step")"
    else
        rm -f "$queue/$1.queued"
    fi
    ;;
scontrol)
    touch "$queue/$2.requeue" # after the word requeue
    ;;
*)
    # The daemon: `array ID AT_ONCE` runs the jobs of an array, and `job ID NAME` one of them.
    if [ "$1" = array ]; then
        xargs -a "$queue/$2.names" -P "$3" -n 1 bash "$0" job "$2"
        exit
    fi
    name=$3
    folder=$(sed -n 's/^#SBATCH --chdir=//p' "$queue/$2.sh")
    cd "$folder" || exit
    export STAND_IN_NAME=$name SLURM_JOB_ID=$2 SLURM_PROCID=0
    if [[ $name == *_* ]]; then
        export SLURM_ARRAY_JOB_ID=$2 SLURM_ARRAY_TASK_ID=${name#*_}
    fi
    while [ -e "$queue/$name.queued" ]; do
        rm -f "$queue/$name.requeue"
        bash "$queue/$2.sh"
        rm -f "$queue/$name.step"
        [ -e "$queue/$name.requeue" ] || rm -f "$queue/$name.queued"
    done
    ;;
esac
