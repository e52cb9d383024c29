"""The figures of a study, by what they are about; `visualization.py` puts them in order."""
