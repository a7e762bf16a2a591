"""`python -m tutelage` is the console command."""

from tutelage.cli.main import run

if __name__ == "__main__":
    run()
