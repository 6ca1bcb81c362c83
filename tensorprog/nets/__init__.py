"""Layers and architectures: functions that emit forward programs with unknown exponents."""

from tensorprog.nets.architectures import ARCHITECTURES as ARCHITECTURES
from tensorprog.nets.architectures import mlp as mlp
from tensorprog.nets.architectures import resnet as resnet
from tensorprog.nets.architectures import transformer as transformer
from tensorprog.nets.batchnorm import batchnorm as batchnorm
from tensorprog.nets.convolution import cnn as cnn
from tensorprog.nets.recurrent import gru as gru
from tensorprog.nets.recurrent import rnn as rnn
