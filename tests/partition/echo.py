"""A program for a node of the lab: answers each UDP datagram, and sends on what it is told to send."""

import socket
import time

PORT = 9999


def serve() -> None:
    """Answers "heard?" with all it heard since "forget"; sends on "say HOST COUNT WORD"; keeps everything else."""
    heard: list[str] = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as mouth:
        mouth.bind(("0.0.0.0", PORT))
        print("ready", flush=True)
        while True:
            data, sender = mouth.recvfrom(65536)
            word = data.decode()
            if word == "heard?":
                mouth.sendto(" ".join(heard).encode(), sender)
            elif word == "forget":
                heard.clear()
            elif word.startswith("say "):
                _, host, count, said = word.split()
                for _ in range(int(count)):
                    mouth.sendto(said.encode(), (host, PORT))
                    time.sleep(0.0002)
                mouth.sendto(b"said", sender)
            else:
                heard.append(word)


def tell(host: str, word: str) -> None:
    """One order from here, without an answer."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as mouth:
        mouth.sendto(word.encode(), (host, PORT))


def ask(host: str, word: str) -> str:
    """One question from here; the answer."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as mouth:
        mouth.settimeout(10)
        mouth.sendto(word.encode(), (host, PORT))
        return mouth.recv(1 << 20).decode()


if __name__ == "__main__":
    serve()
