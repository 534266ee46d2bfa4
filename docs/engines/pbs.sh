#!/bin/bash
# qsub pbs.sh; an array of equal workers. Before the walltime PBS sends SIGTERM, kill_delay seconds
# before it kills: no run is begun in the last hour, what is cut goes on elsewhere.
#PBS -N segsweep
#PBS -J 1-8
#PBS -r y
#PBS -j oe
#PBS -l select=1:ncpus=4:ngpus=1:mem=16gb
#PBS -l walltime=12:00:00
cd "$PBS_O_WORKDIR" || exit 2
exec .venv/bin/python -m segsweep work --sweep demo --until +11h
