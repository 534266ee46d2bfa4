#!/bin/bash
# bsub < lsf.sh; an array of equal workers, told five minutes before the limit, and started again
# (-r) when their host dies
#BSUB -J "segsweep[1-8]"
#BSUB -o segsweep.%J.%I.log
#BSUB -n 4
#BSUB -R "span[hosts=1] rusage[mem=16GB]"
#BSUB -gpu "num=1"
#BSUB -W 12:00
#BSUB -wa TERM -wt 5
#BSUB -r
exec .venv/bin/python -m segsweep work --sweep demo --until +11h
