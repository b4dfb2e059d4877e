"""raftnode: highly available tasks on a Raft-replicated database record."""
